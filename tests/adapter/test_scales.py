"""`rank_pattern` and `alpha_pattern`: read as PEFT does, and written for it."""

import json
import re

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.other import get_pattern_key
from torch import nn

from koinize import merge_adapters
from koinize.adapter import open_adapter, read_header
from koinize.adapter import scales as module_under_test
from koinize.adapter.scales import Scales, own_keys
from koinize.errors import InputError

LAYERS = [f"model.layers.{n}.self_attn.{p}_proj" for n in (0, 1, 10, 11) for p in "qkv"]
NAMES = [*LAYERS, "a.proj", "a_proj", "proj", "z.proj", "z.z.proj", "lm_head"]
KEYS = [
    "a.proj",
    "proj", "z.proj", "^proj", "^z.proj", "q_proj", "self_attn.k_proj", "1.self_attn.v_proj",
    "^model.layers.1.self_attn.q_proj", "^self_attn.q_proj", "attn.q_proj", "lm_head", "head",
    r".*\.1\.self_attn\.[qk]_proj", r"layers\.(?:0|1\d)\..*", "(k|v)_proj", ".*", r"\w+$", "z.*",
]  # fmt: skip


def scales(names, **config):
    return Scales("config", {"r": 1, "lora_alpha": 1, **config}, names)


@pytest.mark.slow
def test_patterns_are_looked_up_as_peft_looks_them_up():
    """Against PEFT's own function, for every key alone and for pairs in both orders."""
    pairs = [(one,) for one in KEYS] + list(zip(KEYS, KEYS[1:] + KEYS[:1], strict=True))
    for keys in (*pairs, *(pair[::-1] for pair in pairs), tuple(KEYS), tuple(KEYS[::-1])):
        if not set(keys) & set(KEYS[:13]) and len(keys) > 1:
            continue  # a process for each would take too long
        pattern = {key: number for number, key in enumerate(keys, start=2)}
        read = scales(NAMES, alpha_pattern=pattern)
        for name in NAMES:
            expected = pattern.get(get_pattern_key(list(pattern), name), 1)
            assert read.of(name, 1) == expected, (keys, name)


PARTS = st.sampled_from(["a", "b", "proj", "1", "a_b", "a+b", "(x)", "^a", "ñ", "x-y"])


@pytest.mark.slow
@settings(max_examples=200, derandomize=True)
@given(st.lists(st.lists(PARTS, min_size=1, max_size=4).map(".".join), min_size=1, unique=True))
def test_own_keys_match_one_module_each(names):
    keys = own_keys(names)
    assert sorted(keys) == sorted(names)
    for name, key in keys.items():
        assert [one for one in names if re.match(rf"(.*\.)?({key})$", one)] == [name]


def test_own_keys_are_names_wherever_that_will_do():
    alike = {"a.b": "^a\\.b", "a_b": "a_b", "c": "^c", "d.c": "d.c", "x+y": "^x\\+y"}
    assert own_keys([*LAYERS, *alike]) == {**{name: name for name in LAYERS}, **alike}


class Nested(nn.Module):
    """A linear layer `proj`, and another whose full name ends so."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(12, 12, bias=False)
        self.z = nn.Module()
        self.z.proj = nn.Linear(12, 12, bias=False)

    def forward(self, x):
        return self.z.proj(self.proj(x))


def nested(folder, targets, rank):
    torch.manual_seed(rank)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False)
    get_peft_model(Nested(), config).save_pretrained(folder)
    return folder


def test_peft_loads_a_merge_of_modules_whose_names_end_alike(tmp_path):
    """`proj` gets rank 4 and `z.proj` 4 + 3: each has to find its own rank and alpha again."""
    inputs = {"a": nested(tmp_path / "a", ["proj"], 4), "b": nested(tmp_path / "b", ["z.proj"], 3)}
    out = merge_adapters(inputs, recipe="mean", out=tmp_path / "out").out
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"]) == (7, {"^proj": 4})
    with open_adapter(out) as adapter:
        ours = {name: adapter.factors(name) for name in adapter.header.modules}
    assert {name: factors.rank for name, factors in ours.items()} == {"proj": 4, "z.proj": 7}
    loaded = PeftModel.from_pretrained(Nested(), out).base_model.model
    for name, factors in ours.items():
        delta = loaded.get_submodule(name).get_delta_weight("default")
        assert torch.allclose(delta, factors.B @ factors.A, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_pattern_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(module_under_test, "SECONDS", 0.5)
    for key in ("rank_pattern", "alpha_pattern"):
        with pytest.raises(InputError) as caught:
            scales(LAYERS, **{key: {r"((\w+\.?)+)+!": 2}})
        assert str(caught.value) == (
            f"config {key} has regular expressions that take more than 0.5 s to match; replace "
            "them by the names of modules"
        )


def test_names_that_are_too_long_are_refused(tmp_path):
    from safetensors.torch import save_file

    name = "base_model.model." + "a." * 600 + "lora_A.weight"
    save_file({name: torch.ones(1, 2)}, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as caught:
        read_header(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/adapter_model.safetensors has a tensor whose name has {len(name)} characters; "
        "expected at most 1000"
    )
