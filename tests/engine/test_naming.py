"""One layer by two names: with the base's configuration here, transformers' own mapping decides."""

import numpy as np
import pytest
from transformers import AutoConfig

from koinize.adapter import read_header
from koinize.engine import merge_adapters, naming
from koinize.errors import InputError
from koinize.model.rehearsal import _tried
from tests.peft_folders import configured, deltas, save

TEXT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4,
}  # fmt: skip
SEEING = {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 32}
LAYER = "layers.1.self_attn.q_proj"
OLD, NEW = f"model.{LAYER}", f"model.language_model.{LAYER}"


@pytest.fixture
def qwen(tmp_path):
    """Qwen2.5-VL, whose layers transformers 4.52 moved; its text alone has a class of its own."""
    config = AutoConfig.for_model("qwen2_5_vl", text_config=TEXT, vision_config=SEEING)
    config.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def adapter(folder, seed, base, *modules):
    shapes = dict.fromkeys(modules, (32, 32))
    saved = save(folder, seed, shapes=shapes, target_modules=["q_proj", "v_proj"])
    return configured(saved, base_model_name_or_path=base)


@pytest.mark.slow
def test_layers_that_were_moved_are_one(tmp_path, qwen):
    old, new = adapter(tmp_path / "de", 1, qwen, OLD), adapter(tmp_path / "en", 2, qwen, NEW)
    report = merge_adapters({"de": old, "en": new}, recipe="mean", out=tmp_path / "out")
    assert report.warnings == (
        f"de: its layers are called here as in today's base: '{NEW}' for '{OLD}'",
    )
    found, want = deltas(report.out), (deltas(old)[OLD] + deltas(new)[NEW]) / 2
    assert found.keys() == {NEW}
    assert np.abs(found[NEW] - want).max() <= 1e-6 * np.abs(want).max()
    assert _tried(str(report.out), qwen) == ""


def test_a_trunk_is_read_so_too(tmp_path, qwen):
    trunk, de = adapter(tmp_path / "trunk", 1, qwen, OLD), adapter(tmp_path / "de", 2, qwen, NEW)
    report = merge_adapters({"de": de}, recipe="sum", trunk=trunk, out=tmp_path / "out")
    found, want = deltas(report.out)[NEW], deltas(de)[NEW]
    assert np.abs(found - want).max() <= 1e-5 * np.abs(want).max()


def test_without_the_base_it_is_refused(tmp_path):
    folders = {
        name: adapter(tmp_path / name, 1, "nobody/knows-it", module)
        for name, module in (("de", OLD), ("en", NEW))
    }
    with pytest.raises(InputError, match="that may be"):
        merge_adapters(folders, recipe="mean", out=tmp_path / "out")


def test_a_layer_that_the_base_has_not_decides_nothing(tmp_path, qwen):
    folders = {
        "de": adapter(tmp_path / "de", 1, qwen, OLD, "model.other.layers.1.self_attn.v_proj"),
        "en": adapter(tmp_path / "en", 2, qwen, NEW),
    }
    with pytest.raises(InputError, match="that may be"):
        merge_adapters(folders, recipe="mean", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.layers.0.block_sparse_moe.gate", "model.layers.0.mlp.gate"),
        ("embed_out", "lm_head"),
        ("model.llm.layers.0.q_proj", "model.language_model.layers.0.q_proj"),
    ],
)
def test_what_transformers_calls_otherwise_today_may_be_one_layer(tmp_path, one, other):
    folders = {
        "de": adapter(tmp_path / "de", 1, "nobody/knows-it", one),
        "en": adapter(tmp_path / "en", 2, "nobody/knows-it", other),
    }
    with pytest.raises(InputError, match=f"'{other}' that may be '{one}' of 'de'"):
        merge_adapters(folders, recipe="mean", out=tmp_path / "out")


def test_the_base_is_asked_only_where_names_may_be_of_one_layer(tmp_path, qwen, monkeypatch):
    monkeypatch.setattr(naming, "configured_in", lambda _: pytest.fail("asked"))
    folders = {
        "de": adapter(tmp_path / "de", 1, qwen, NEW, NEW.replace("q_proj", "v_proj")),
        "en": adapter(tmp_path / "en", 2, qwen, NEW),
        "fr": adapter(tmp_path / "fr", 2, qwen, NEW.replace("q_proj", "v_proj")),
    }
    merge_adapters(folders, recipe="mean", out=tmp_path / "out")
    assert read_header(tmp_path / "out").modules
