"""GGUF read back: every scale is the adapter's, and every row is where llama.cpp looks for it."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from koinize.adapter import read_header
from koinize.errors import InputError
from koinize.export.llama_cpp import ARCHITECTURES, write_gguf
from tests.peft_folders import configured
from tests.serving.conftest import kit  # noqa: F401 - a fixture
from tests.serving.lying import ALPHA, RANK, write_adapter
from tests.serving.real import turned, write_adapter_gguf

gguf = pytest.importorskip("gguf")


def read(path):
    """(fields that matter, tensors as torch has them, their types)."""
    found = gguf.GGUFReader(str(path))
    fields = {
        name: found.fields[name].contents()
        for name in ("general.architecture", "general.type", "adapter.type", "adapter.lora.alpha")
    }
    tensors = {one.name: np.array(one.data) for one in found.tensors}
    return fields, tensors, {one.name: one.tensor_type.name for one in found.tensors}


def written(adapter, base, path):
    write_gguf(read_header(adapter), base, path)
    return read(path)


def test_an_adapter_with_rslora(kit, tmp_path):  # noqa: F811
    """Against a writer of the tests' own, which llama.cpp has been seen to read right."""
    fields, tensors, kinds = written(kit / "mine", kit / "base", tmp_path / "ours.gguf")
    assert fields == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": ALPHA * math.sqrt(RANK),  # alpha / r is then alpha / sqrt(r)
    }
    _, wanted, _ = read(write_adapter_gguf(kit / "mine", tmp_path / "theirs.gguf"))
    assert tensors.keys() == wanted.keys()
    assert all(np.array_equal(tensors[name], wanted[name]) for name in wanted)
    assert set(kinds.values()) == {"F32"}


def deltas(base, adapter):
    """What PEFT adds to each module (outputs x inputs)."""
    plain = AutoModelForCausalLM.from_pretrained(str(base))
    model = PeftModel.from_pretrained(plain, str(adapter))
    found = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach().numpy()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    assert found
    return found


NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "down_proj": "ffn_down"}


def test_every_module_has_its_own_scale(kit, tmp_path):  # noqa: F811
    adapter = write_adapter(
        tmp_path / "odd",
        kit / "base",
        1,
        target_modules=list(NAMES),
        rank_pattern={"q_proj": 7},
        alpha_pattern={"k_proj": 3},
    )
    path = tmp_path / "odd.gguf"
    found = write_gguf(read_header(adapter), kit / "base", path)
    fields, tensors, _ = read(path)
    alpha = fields["adapter.lora.alpha"]
    # q: 8 sqrt(7), k: 3 sqrt(4), down: 8 sqrt(4), two layers each.
    assert (found.modules, found.folded) == (6, 4)
    for name, wanted in deltas(kit / "base", adapter).items():
        _, _, layer, rest = name.split(".", 3)
        place = f"blk.{layer}.{NAMES[rest.rpartition('.')[2]]}.weight.lora_"
        A, B = tensors[f"{place}a"], tensors[f"{place}b"]
        given = alpha / A.shape[0] * (B.astype(np.float64) @ A)
        assert np.allclose(given, turned(name, wanted), rtol=0, atol=1e-5), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_stay_the_bits_that_they_are(kit, tmp_path, dtype):  # noqa: F811
    adapter = write_adapter(tmp_path / "mine", kit / "base", 1, target_modules=["down_proj"])
    path = adapter / "adapter_model.safetensors"
    stored = {name: one.to(dtype) for name, one in load_file(path).items()}
    save_file(stored, path)
    _, tensors, kinds = written(adapter, kit / "base", tmp_path / "mine.gguf")
    assert set(kinds.values()) == {"BF16" if dtype == torch.bfloat16 else "F16"}
    wanted = next(one for name, one in stored.items() if "layers.1.mlp.down_proj.lora_B" in name)
    found = tensors["blk.1.ffn_down.weight.lora_b"].view(np.uint16)
    assert np.array_equal(found, wanted.view(torch.uint16).numpy())


def a_base(folder, **config):
    folder.mkdir()
    usual = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    (folder / "config.json").write_text(json.dumps(usual | config))
    return folder


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_package_knows_the_layers_of_every_architecture(kit, tmp_path, architecture):  # noqa: F811
    base = a_base(tmp_path / "base", architectures=[architecture])
    _, tensors, _ = written(kit / "mine", base, tmp_path / "mine.gguf")
    assert len(tensors) == 2 * 2 * 7
    parts = ("q", "k", "v", "output")
    layers = {f"attn_{one}" for one in parts} | {"ffn_gate", "ffn_up", "ffn_down"}
    assert {name.split(".")[2] for name in tensors} == layers


INSTEAD = "export with --to fused, and convert that model with llama.cpp's convert_hf_to_gguf.py"


def test_an_architecture_that_is_not_known(kit, tmp_path):  # noqa: F811
    base = a_base(tmp_path / "base", architectures=["BloomForCausalLM"])
    with pytest.raises(InputError) as caught:
        written(kit / "mine", base, tmp_path / "mine.gguf")
    assert str(caught.value) == (
        f"{base} is a model of the class 'BloomForCausalLM', whose layers koinize cannot name in "
        f"GGUF; expected one of {', '.join(ARCHITECTURES)}; {INSTEAD}"
    )


@pytest.mark.parametrize("config", [{"num_hidden_layers": 1}, {}])
def test_what_llama_cpp_has_no_place_for(kit, tmp_path, config):  # noqa: F811
    """A layer more than the base has; or the output layer, where it is the embedding."""
    adapter = kit / "mine"
    name = "model.layers.1.mlp.down_proj"
    base = a_base(tmp_path / "base", tie_word_embeddings=True, **config)
    if not config:
        adapter, name = write_adapter(tmp_path / "head", kit / "base", 1), "lm_head"
        path = adapter / "adapter_model.safetensors"
        before, after = "base_model.model.model.layers.0.mlp.down_proj", "base_model.model.lm_head"
        save_file({key.replace(before, after): one for key, one in load_file(path).items()}, path)
        configured(adapter, target_modules="all-linear")
    with pytest.raises(InputError) as caught:
        written(adapter, base, tmp_path / "mine.gguf")
    assert str(caught.value) == (
        f"{adapter} changes '{name}', for which llama.cpp has no place in a model of this kind; "
        f"{INSTEAD}"
    )


def test_without_the_package(kit, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError) as caught:
        write_gguf(read_header(kit / "mine"), kit / "base", tmp_path / "mine.gguf")
    assert str(caught.value) == (
        "writing GGUF needs the package 'gguf'; pip install 'koinize[gguf]'"
    )
