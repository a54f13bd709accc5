"""Adapters of a mixture's experts, one linear layer each, as before transformers 5."""

import re

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from koinize.adapter import open_adapter
from koinize.engine import merge_adapters
from koinize.engine.verify import verify_adapter
from koinize.examples.tiny.make_base import tiny_tokenizer
from koinize.model.loaded import adopt, with_adapter
from tests.peft_folders import configured, deltas, save

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 3,
}  # fmt: skip
LAYER = "model.layers.0"
EXPERT = LAYER + ".block_sparse_moe.experts.{}.{}"
SHAPES = {
    **{
        EXPERT.format(expert, weight): (32, 48) if weight == "w2" else (48, 32)
        for expert in range(3)
        for weight in ("w1", "w2", "w3")
    },
    f"{LAYER}.self_attn.q_proj": (32, 32),
}  # fmt: skip


def model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", **SHAPE)).eval()


def by_hand(updates):
    """The model with the updates added to the parameters that its experts share."""
    changed = model()
    experts, layer = changed.model.layers[0].mlp.experts, changed.model.layers[0]
    for name, update in updates.items():
        update = torch.from_numpy(update).float()
        if found := re.search(r"experts\.(\d)\.w(\d)", name):
            number, which = int(found[1]), found[2]
            if which == "2":
                experts.down_proj.data[number] += update
            else:
                rows = slice(0, 48) if which == "1" else slice(48, 96)
                experts.gate_up_proj.data[number, rows] += update
        else:
            layer.self_attn.q_proj.weight.data += update
    return changed


@pytest.fixture
def adapters(tmp_path):
    targets = ["w1", "w2", "w3", "q_proj"]
    return {
        name: save(tmp_path / name, seed, shapes=SHAPES, target_modules=targets, lora_alpha=1)
        for seed, name in enumerate(("de", "en"))
    }


@torch.inference_mode()
def logits(changed):
    return changed(input_ids=torch.arange(2, 20)[None]).logits


@pytest.mark.parametrize("rank", ["full", 2, 0.9])
def test_a_merge_of_experts_loads_in_peft(tmp_path, adapters, rank):
    """Whose factors of all experts have one rank, whatever the energy of each."""
    report = merge_adapters(
        adapters, recipe="knots-ties", density=0.5, rank=rank, out=tmp_path / "out"
    )
    with open_adapter(report.out) as adapter:
        ranks = {name: module.rank for name, module in adapter.header.modules.items()}
    of_experts = {one for name, one in ranks.items() if "experts" in name}
    assert of_experts == {max(ranks.values())}
    wanted = logits(by_hand(deltas(report.out)))
    found = logits(PeftModel.from_pretrained(model(), report.out).eval())
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert float((wanted - logits(model())).abs().max()) > 1e-3


def test_filling_up_changes_no_update(tmp_path, adapters):
    """A share of the energy keeps as much of each expert as it would alone."""
    whole = deltas(merge_adapters(adapters, recipe="mean", out=tmp_path / "whole").out)
    found = deltas(merge_adapters(adapters, recipe="mean", rank=0.9, out=tmp_path / "out").out)
    for name, update in whole.items():
        squares = np.linalg.svd(update, compute_uv=False) ** 2
        lost = ((found[name] - update) ** 2).sum() / squares.sum()
        kept = np.cumsum(squares) / squares.sum()
        rank = int((kept >= 0.9).argmax())
        assert lost == pytest.approx(1 - kept[rank], abs=1e-5)


@pytest.mark.slow
def test_verify_loads_it_the_way_peft_does(tmp_path, adapters):
    """On a model of the base's shapes, if its configuration is here; ranks that differ are seen."""
    base = tmp_path / "base"
    AutoConfig.for_model("mixtral", **SHAPE).save_pretrained(base)
    for folder in adapters.values():
        configured(folder, base_model_name_or_path=str(base))
    out = merge_adapters(adapters, recipe="mean", rank=2, out=tmp_path / "out").out
    found = verify_adapter(out)
    assert f"whether PEFT loads it on {base}" in found.checked
    assert not found.mismatches

    AutoConfig.for_model("mixtral", **{**SHAPE, "hidden_size": 16}).save_pretrained(base)
    (mismatch,) = verify_adapter(out).mismatches
    assert mismatch.startswith("PEFT does not load it: ")


def test_without_the_base_verify_says_nothing_of_peft(tmp_path, adapters):
    out = merge_adapters(adapters, recipe="mean", rank=2, out=tmp_path / "out").out
    assert not any("PEFT" in one for one in verify_adapter(out).checked)


@pytest.mark.parametrize("alpha", [1, 3])
def test_experts_on_the_base_are_what_they_are_by_hand(tmp_path, alpha):
    """As evaluating puts an adapter on, and takes it off again."""
    targets = ["w1", "w2", "w3", "q_proj"]
    folder = save(tmp_path / "de", 1, shapes=SHAPES, target_modules=targets, lora_alpha=alpha)
    base = adopt(model(), tiny_tokenizer(), torch.device("cpu"), name="x")
    before, wanted = logits(base.model), logits(by_hand(deltas(folder)))
    with with_adapter(base, folder):
        found = logits(base.model)
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert torch.equal(logits(base.model), before)
