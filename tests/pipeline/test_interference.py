"""How adapters interfere: measured once for each set of adapters, and only for the report."""

import json

import pytest
import torch
from safetensors.torch import save_file

from koinize.engine.inspect import inspect_adapters
from koinize.errors import KoinizeError
from koinize.pipeline.interference import interference
from koinize.store import Store


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
