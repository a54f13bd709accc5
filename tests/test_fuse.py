"""An adapter added to its base's weights: which bytes, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from koinize.engine.fuse import fuse_adapter
from koinize.errors import InputError
from tests.peft_folders import Q, base_model, deltas, loaded, save


@pytest.fixture
def adapters(tmp_path):
    return {name: save(tmp_path / name, seed) for seed, name in enumerate(("en", "fr", "ja"))}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fuse_rounds_the_exact_sum_once(tmp_path, adapters, dtype, shards):
    base, tensors = base_model(tmp_path / "base", dtype, shards)
    report = fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    found, lost, total = loaded(report.out), 0.0, 0.0
    for name, delta in deltas(adapters["en"]).items():
        exact = tensors[f"{name}.weight"].double().numpy() + delta
        written = found[f"{name}.weight"]
        assert written.dtype == dtype
        # One rounding to the dtype, and three float32 products before it.
        step = torch.finfo(dtype).eps / 2 + 8 * 2**-24
        assert (np.abs(written.double().numpy() - exact) <= step * np.abs(exact).max()).all()
        lost += ((written.double().numpy() - exact) ** 2).sum()
        total += (delta**2).sum()
    assert torch.equal(found["model.norm.weight"], tensors["model.norm.weight"])
    if dtype == torch.bfloat16:
        assert report.loss == pytest.approx(math.sqrt(lost / total), rel=1e-3)
    names = {path.name for path in report.out.iterdir()}
    assert "config.json" in names
    assert "pytorch_model.bin" not in names


def test_fuse_turns_the_update_for_conv1d(tmp_path):
    adapter = save(tmp_path / "en", 0, fan_in_fan_out=True)
    base, tensors = base_model(tmp_path / "base", turned=True)
    out = fuse_adapter(adapter, base, out=tmp_path / "out").out
    wanted = tensors[f"{Q}.weight"].double().numpy() + deltas(adapter)[Q].T
    assert loaded(out)[f"{Q}.weight"].numpy() == pytest.approx(wanted, abs=1e-5)


def test_fuse_refuses_a_base_that_does_not_fit(tmp_path, adapters):
    base, _ = base_model(tmp_path / "base", turned=True)
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{base}/model.safetensors tensor '{Q}.weight' is F32 [10, 12]; expected [12, 10] in F32, "
        "BF16, F16, as the adapter has it"
    )
    other = save(tmp_path / "odd", 1, shapes={"model.layers.0.q_prog": (12, 10)})
    with pytest.raises(InputError) as caught:
        fuse_adapter(other, base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{base} has no tensor 'model.layers.0.q_prog.weight', which the adapter changes; did you "
        f"mean '{Q}.weight'?"
    )
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], tmp_path, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path} does not hold its safetensors files; expected the folder of a base model"
    )
    assert set(tmp_path.iterdir()) == before | {other}


def test_fuse_refuses_whole_modules(tmp_path, adapters):
    path = adapters["en"] / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.lm_head.weight": torch.ones(2, 2)}, path)
    config = json.loads((adapters["en"] / "adapter_config.json").read_text())
    config["modules_to_save"] = ["lm_head"]
    (adapters["en"] / "adapter_config.json").write_text(json.dumps(config))
    base, _ = base_model(tmp_path / "base")
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{adapters['en']} holds the whole modules lm_head, which are no update; expected LoRA "
        "factors alone; merge it into the base with PEFT"
    )


def test_an_index_cannot_point_outside(tmp_path, adapters):
    base, _ = base_model(tmp_path / "base", shards=3)
    index = {"weight_map": {"a": "../en/adapter_model.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="does not hold its safetensors files"):
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
