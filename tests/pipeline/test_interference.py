"""How adapters interfere: measured once for each set of adapters, and only for the report."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from koinize.engine.inspect import inspect_adapters
from koinize.errors import KoinizeError
from koinize.pipeline.interference import interference
from koinize.store import Store
from tests.oracle.interference import interference as recomputed
from tests.peft_folders import Q, V, save


@pytest.fixture
def store(tmp_path):
    """A store with three adapters, a, b and c."""
    made = Store(tmp_path)
    for seed, name in enumerate("abc"):
        with made.building(name, f"train/t/{name}", {}) as draft:
            random = torch.Generator().manual_seed(seed)
            names = ("A", (2, 7)), ("B", (9, 2))
            tensors = {
                f"base_model.model.q.lora_{side}.weight": torch.randn(shape, generator=random)
                for side, shape in names
            }
            save_file(tensors, draft.folder / "adapter_model.safetensors")
            config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q"]}
            (draft.folder / "adapter_config.json").write_text(json.dumps(config))
    return made


def test_it_is_what_inspecting_gives(store, tmp_path):
    found = interference(store, tmp_path, "t", {"de": "a", "en": "b"})
    inspected = inspect_adapters(
        {one: store.open(id_).folder for one, id_ in (("de", "a"), ("en", "b"))}
    )
    assert tuple(found["languages"]) == ("de", "en")
    assert found["cosine"][0][1] == inspected.total.cosine[0][1]
    assert found["energy_ranks"] == (1, 2)
    assert json.loads(json.dumps(found)).keys() >= {"norms", "row_angle", "sign_conflict"}


@pytest.mark.parametrize("begun", [False, True])
def test_the_oracle_finds_the_same_where_rows_are_sampled(tmp_path, begun):
    """All of a report's figures, from other factors of the updates; one lacks a module."""
    tall = {Q: (300, 40), V: (90, 14)}
    shapes = {"de": {Q: tall[Q]}, "en": tall, "fr": tall}
    folders = {
        name: save(tmp_path / name, seed, some) for seed, (name, some) in enumerate(shapes.items())
    }
    trunk = save(tmp_path / "trunk", 7, {Q: tall[Q]}) if begun else None
    total, expected = inspect_adapters(folders, trunk=trunk).total, recomputed(folders, trunk)
    for name in (one.name for one in fields(total)):
        # From float32; the angle of a space to itself is the root of twice a cosine's rounding.
        close = pytest.approx(np.array(expected[name]), rel=1e-5, abs=1e-5)
        assert np.array(getattr(total, name)) == close


def test_it_is_measured_again_only_when_an_adapter_changes(store, tmp_path, monkeypatch):
    first = interference(store, tmp_path, "t", {"de": "a", "en": "b"})
    other = interference(store, tmp_path, "u/..", {"de": "a", "en": "c"})
    monkeypatch.setattr("koinize.pipeline.interference._measure", lambda *_: {"measured": "again"})
    assert interference(store, tmp_path, "t", {"de": "a", "en": "b"}) == json.loads(
        json.dumps(first)
    )
    assert interference(store, tmp_path, "u/..", {"de": "a", "en": "c"}) == json.loads(
        json.dumps(other)
    )
    again = interference(store, tmp_path, "t", {"de": "a", "en": "c"})
    assert again == {"measured": "again"}


@pytest.mark.parametrize("damage", ["", "[1]", "{}", '{"of": 1'])
def test_a_damaged_memory_is_measured_again(store, tmp_path, damage):
    first = interference(store, tmp_path, "t", {"de": "a", "en": "b"})
    (kept,) = (tmp_path / "interference").iterdir()
    kept.write_text(damage)
    assert interference(store, tmp_path, "t", {"de": "a", "en": "b"}) == first


def test_one_language_interferes_with_nobody(store, tmp_path):
    assert interference(store, tmp_path, "t", {"de": "a"}) is None
    assert interference(store, tmp_path, "t", {}) is None
    assert not (tmp_path / "interference").exists()


def test_a_changed_adapter_is_never_measured(store, tmp_path):
    path = store.root / "artifacts" / "a" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(KoinizeError, match=r"its file adapter_model\.safetensors is missing or "):
        interference(store, tmp_path, "t", {"de": "a", "en": "b"})
