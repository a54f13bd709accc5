"""Fused weights are believed when they are the base's and the adapter's, and not before."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from koinize.engine.fuse import fuse_adapter
from koinize.engine.proof import prove_fused
from koinize.errors import StepError
from tests.peft_folders import Q, base_model, configured, deltas, save

WEIGHTS = "model.safetensors"


def fused(tmp_path, dtype=torch.float32, alpha=6, **options):
    adapter = save(tmp_path / "en", 0, lora_alpha=alpha)
    base, tensors = base_model(tmp_path / "base", dtype, **options)
    return adapter, base, tensors, fuse_adapter(adapter, base, out=tmp_path / "out").out


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_fused_is_proven(tmp_path, dtype, turned):
    adapter, base, tensors, out = fused(tmp_path, dtype, turned=turned)
    proof = prove_fused(adapter, base, out)
    assert (proof.modules, proof.unchanged) == (2, 0)
    along = total = 0.0
    for name, delta in deltas(adapter).items():
        wanted = delta.T if turned else delta
        before, after = tensors[f"{name}.weight"], load_file(out / WEIGHTS)[f"{name}.weight"]
        along += ((after.double() - before.double()).numpy() * wanted).sum()
        total += (wanted**2).sum()
    assert proof.share == pytest.approx(along / total, rel=1e-6)


@pytest.mark.parametrize("what", ["base", "weight", "twice", "other"])
def test_other_weights_are_not(tmp_path, what):
    adapter, base, tensors, out = fused(tmp_path)
    name = f"{Q}.weight"
    held = load_file(out / WEIGHTS)
    if what == "base":
        held = tensors
    elif what == "weight":  # one of 120, by a thousandth of its size
        held[name][3, 4] *= 1.001
    elif what == "twice":
        held[name] = tensors[name] + 2 * (held[name] - tensors[name])
    else:
        adapter = save(tmp_path / "fr", 1)
    save_file(held, out / WEIGHTS)
    with pytest.raises(StepError, match=f"tensor '{Q}.weight' is not the base's and the adapter's"):
        prove_fused(adapter, base, out)


def test_an_update_below_the_rounding_of_the_base(tmp_path):
    """A step of bfloat16 at 1 is 2^-8: an update of 1e-6 moves no weight."""
    adapter, base, _, out = fused(tmp_path, torch.bfloat16, alpha=1e-6)
    with pytest.raises(StepError) as caught:
        prove_fused(adapter, base, out)
    assert str(caught.value).startswith(
        "the fused weights hold 0% of the adapter's update: rounding to the base's dtype took the "
        "rest; fuse into a base of a wider dtype"
    )


def test_a_module_that_rounding_took_is_counted(tmp_path):
    adapter = configured(save(tmp_path / "en", 0), alpha_pattern={"q_proj": 1e-6})
    base, _ = base_model(tmp_path / "base", torch.bfloat16)
    out = fuse_adapter(adapter, base, out=tmp_path / "out").out
    proof = prove_fused(adapter, base, out)
    assert (proof.modules, proof.unchanged) == (2, 1)


def test_a_base_is_not_its_own_fusion(tmp_path):
    adapter, base, _, _ = fused(tmp_path)
    shutil.copytree(base, tmp_path / "copy")
    with pytest.raises(StepError, match="is not the base's and the adapter's update"):
        prove_fused(adapter, base, tmp_path / "copy")
