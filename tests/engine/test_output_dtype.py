"""The dtype of what a merge writes."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from koinize.engine import merge_adapters
from koinize.engine.resize import resize_adapter
from koinize.engine.verify import verify_adapter
from tests.peft_folders import save

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def adapters(tmp_path):
    return {name: save(tmp_path / name, seed) for seed, name in enumerate(("en", "fr", "ja"))}


def cast(folder, dtype):
    """The adapter with all its tensors in this dtype."""
    path = folder / WEIGHTS
    save_file({key: one.to(dtype) for key, one in load_file(path).items()}, path)


DTYPES = {  # of the adapters, given, written
    "all bfloat16": (["bfloat16"] * 3, "auto", "bfloat16"),
    "some bfloat16": (["bfloat16", "bfloat16", "float32"], "auto", "float32"),
    "all float16": (["float16"] * 3, "auto", "float32"),  # whose range a merge may leave
    "asked for": (["bfloat16"] * 3, "float32", "float32"),
}


@pytest.mark.parametrize("kind", DTYPES)
def test_the_output_is_as_narrow_as_all_the_inputs(tmp_path, adapters, kind):
    given, asked, written = DTYPES[kind]
    for folder, dtype in zip(adapters.values(), given, strict=True):
        cast(folder, getattr(torch, dtype))
    settings = {"recipe": "knots-ties", "density": 0.5, "rank": 2}
    report = merge_adapters(adapters, out=tmp_path / "out", dtype=asked, **settings)
    exact = merge_adapters(adapters, out=tmp_path / "exact", dtype="float32", **settings)
    tensors = [load_file(one.out / WEIGHTS) for one in (report, exact)]
    assert report.dtype == written
    for name, tensor in tensors[0].items():
        assert tensor.dtype == getattr(torch, written)
        assert torch.equal(tensor, tensors[1][name].to(tensor.dtype))  # rounded once, at the end
    line = "- Written in bfloat16, 8 significant bits."
    card = (report.out / "README.md").read_text()
    assert (line in card) == (written == "bfloat16")
    assert verify_adapter(report.out, adapters).mismatches == ()
    (report.out / "README.md").write_text(card.replace("- Written in", "- Kept in"))
    (mismatch,) = verify_adapter(report.out, adapters).mismatches
    assert mismatch.startswith(f"the card does not state: Written in {written}, ")


def test_resize_keeps_the_dtype(tmp_path, adapters):
    cast(adapters["en"], torch.bfloat16)
    assert resize_adapter(adapters["en"], 2, out=tmp_path / "out").dtype == "bfloat16"
