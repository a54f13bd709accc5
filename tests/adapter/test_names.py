"""One layer has one name, whichever program saved it; and what cannot be known is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from koinize.adapter import open_adapter, read_header
from koinize.adapter.names import named_as, quantized_copy
from koinize.engine import merge_adapters
from koinize.errors import InputError
from tests.peft_folders import configured, deltas, save

LAYER = "layers.0.self_attn.q_proj"
OLD, NEW = f"language_model.model.{LAYER}", f"model.language_model.{LAYER}"


def adapter(folder, seed, *modules):
    return save(folder, seed, shapes=dict.fromkeys(modules, (12, 10)))


def renamed(folder, change):
    """The adapter with its tensors called otherwise."""
    path = folder / "adapter_model.safetensors"
    save_file({change(name): tensor for name, tensor in load_file(path).items()}, path)
    return folder


WRAPPED = {
    "activation checkpointing": lambda n: n.replace(
        "layers.0.", "layers.0._checkpoint_wrapped_module."
    ),
    "torch.compile": lambda n: f"_orig_mod.{n}",
    "torch.compile inside": lambda n: n.replace("model.model.", "model._orig_mod.model."),
    "FSDP": lambda n: n.replace("model.layers.", "model._fsdp_wrapped_module.layers."),
    "data parallel": lambda n: f"module.{n}",
    "PEFT on PEFT": lambda n: f"base_model.model.{n}",
    "with the adapter's name": lambda n: n.replace(".weight", ".default.weight"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_are_no_layers(tmp_path, kind):
    plain = adapter(tmp_path / "plain", 1, f"model.{LAYER}")
    wrapped = renamed(adapter(tmp_path / "wrapped", 2, f"model.{LAYER}"), WRAPPED[kind])
    assert list(read_header(wrapped).modules) == [f"model.{LAYER}"]
    want = deltas(plain)[f"model.{LAYER}"]
    with open_adapter(wrapped) as opened:
        factors = opened.factors(f"model.{LAYER}")
    want = (want + (factors.B @ factors.A).numpy()) / 2
    out = merge_adapters({"de": plain, "en": wrapped}, recipe="mean", out=tmp_path / "out").out
    (found,) = deltas(out).values()
    assert np.abs(found - want).max() <= 1e-6 * np.abs(want).max()


def test_one_layer_twice_in_one_file_is_refused(tmp_path):
    folder = adapter(tmp_path / "de", 1, f"model.{LAYER}")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {f"_orig_mod.{name}": one.clone() for name, one in tensors.items()}, path)
    with pytest.raises(InputError, match="has two tensors for lora_A, and nothing says which"):
        read_header(folder)


def test_what_transformers_moved_is_one_layer(tmp_path):
    """The old names of one adapter are those that the other has; a note says so."""
    old = adapter(tmp_path / "old", 1, OLD, "language_model.lm_head")
    new = adapter(tmp_path / "new", 2, NEW, "lm_head")
    want = {
        NEW: (deltas(old)[OLD] + deltas(new)[NEW]) / 2,
        "lm_head": (deltas(old)["language_model.lm_head"] + deltas(new)["lm_head"]) / 2,
    }
    report = merge_adapters({"de": old, "en": new}, recipe="mean", out=tmp_path / "out")
    assert report.warnings == (
        "de: saved before transformers 4.52: its layers are called here as the others' are, "
        "'model.language_model.' for 'language_model.model.'",
    )
    found = deltas(report.out)
    assert found.keys() == want.keys()
    for name, update in want.items():
        assert np.abs(found[name] - update).max() <= 1e-6 * np.abs(update).max()


def test_adapters_that_agree_keep_their_names(tmp_path):
    folders = {name: adapter(tmp_path / name, seed, OLD) for seed, name in enumerate("ab")}
    assert list(deltas(merge_adapters(folders, recipe="mean", out=tmp_path / "out").out)) == [OLD]


@pytest.mark.parametrize("other", [f"model.language_model.{LAYER}", f"transformer.{LAYER}"])
def test_what_cannot_be_known_is_refused(tmp_path, other):
    """Qwen2-VL's layers moved under another prefix, which a text-only class does not have."""
    one = adapter(tmp_path / "de", 1, f"model.{LAYER}")
    two = adapter(tmp_path / "en", 2, other)
    with pytest.raises(InputError) as caught:
        merge_adapters({"de": one, "en": two}, recipe="mean", out=tmp_path / "out")
    assert str(caught.value) == (
        f"{two} calls a layer '{other}' that may be 'model.{LAYER}' of 'de'; expected adapters "
        "that were saved from one model class; load it in PEFT on the base model as the others "
        "were, and save it again"
    )


def test_layers_of_two_kinds_are_two(tmp_path):
    """A vision tower has layers of the same number, and an encoder those of a decoder."""
    pairs = {
        "tower": f"vision_tower.{LAYER}",
        "both": f"model.language_model.{LAYER}",
        "encoder": f"encoder.{LAYER}",
    }
    folders = {name: adapter(tmp_path / name, 1, module) for name, module in pairs.items()}
    folders["decoder"] = adapter(tmp_path / "decoder", 2, f"decoder.{LAYER}")
    report = merge_adapters(folders, recipe="mean", out=tmp_path / "out")
    assert len(report.modules) == 4


def test_two_layers_of_one_adapter_are_two(tmp_path):
    one = adapter(tmp_path / "one", 1, f"model.{LAYER}", NEW)
    two = adapter(tmp_path / "two", 2, NEW)
    report = merge_adapters({"one": one, "two": two}, recipe="mean", out=tmp_path / "out")
    assert [module.name for module in report.modules] == [NEW, f"model.{LAYER}"]


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([OLD], OLD),
        ([NEW, "visual.layers.0.self_attn.q_proj"], NEW),
        ([f"model.{LAYER}", NEW], OLD),  # either may be meant
        (["model.layers.1.self_attn.q_proj"], OLD),
    ],
)
def test_names_as_a_model_has_them(tmp_path, layers, named):
    header = read_header(adapter(tmp_path / "de", 1, OLD))
    assert list(named_as(header, layers).modules) == [named]


def test_a_revision_that_is_not_stated_is_no_other_revision(tmp_path):
    folders = {name: adapter(tmp_path / name, seed, NEW) for seed, name in enumerate("abc")}
    configured(folders["b"], revision="abc123")
    configured(folders["c"], revision="abc123")
    report = merge_adapters(folders, recipe="mean", out=tmp_path / "out")
    assert report.warnings == ("a: states no revision of the base, and is taken for one of abc123",)
    assert read_header(report.out).revision == "abc123"
    configured(folders["c"], revision="def456")
    with pytest.raises(InputError) as caught:
        merge_adapters(folders, recipe="mean", out=tmp_path / "other")
    assert "'c' adapts example/base at def456, 'b' adapts example/base at abc123" in str(
        caught.value
    )


def test_quantised_copies():
    full, copy = "meta-llama/Llama-3.1-8B", "unsloth/Meta-Llama-3.1-8B-unsloth-bnb-4bit"
    said = (
        f"if '{copy}' is a quantised copy of '{full}', the adapter fits both: write '{full}' as "
        "base_model_name_or_path into its adapter_config.json"
    )
    assert quantized_copy(full, copy) == quantized_copy(copy, full) == said
    for other in ("TheBloke/x-GPTQ", "x-AWQ", "x-int4", "x_8bit"):
        assert quantized_copy(full, other)
    for two in ((full, "x/y"), (copy, "x-GPTQ"), (full, "bnb-research/model-4bits")):
        assert quantized_copy(*two) == ""


def test_what_differs_in_the_backward_pass_alone(tmp_path):
    """VeLoRA's configuration, and what it keeps of the activations in the file."""
    plain = adapter(tmp_path / "plain", 1, f"model.{LAYER}")
    folder = configured(
        adapter(tmp_path / "velora", 1, f"model.{LAYER}"), velora_config={"num_groups": 4}
    )
    path = folder / "adapter_model.safetensors"
    extra = {f"base_model.model.model.{LAYER}.lora_velora_embed": torch.ones(3)}
    save_file(load_file(path) | extra, path)
    with open_adapter(folder) as one, open_adapter(plain) as other:
        found, wanted = one.factors(f"model.{LAYER}"), other.factors(f"model.{LAYER}")
    assert torch.equal(found.A, wanted.A)
    assert torch.equal(found.B, wanted.B)


def test_a_flag_that_tells_nothing_may_differ(tmp_path):
    """PEFT's fan_in_fan_out is that of the last module, whatever the others are."""
    folders = {name: adapter(tmp_path / name, seed, NEW) for seed, name in enumerate("ab")}
    configured(folders["b"], fan_in_fan_out=True)
    assert not merge_adapters(folders, recipe="mean", out=tmp_path / "out").warnings


def test_mlx_is_named(tmp_path):
    folder = tmp_path / "mlx"
    folder.mkdir()
    settings = {"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError) as caught:
        read_header(folder)
    assert str(caught.value) == (
        f"{folder}/adapter_config.json is the configuration of an MLX adapter; expected an adapter "
        "that PEFT wrote; convert it: PEFT's lora_A and lora_B are MLX's lora_a and lora_b "
        "transposed, and its lora_alpha is MLX's scale times the rank"
    )
