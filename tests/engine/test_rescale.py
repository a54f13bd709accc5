"""Another scale of an adapter that is there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from koinize.adapter import open_adapter
from koinize.engine import merge_adapters
from koinize.engine.rescale import rescale_adapter
from tests.peft_folders import save


@pytest.mark.parametrize(
    ("recipe", "more"),
    [("ties", {}), ("knots-ties", {"rank": 2}), ("core-ties", {}), ("mean", {}), ("dare-ties", {})],
)
def test_it_is_the_merge_at_that_scale(tmp_path, recipe, more) -> None:
    adapters = {name: save(tmp_path / name, seed) for seed, name in enumerate(("en", "fr"))}
    settings = {"recipe": recipe, "density": 0.5} if recipe != "mean" else {"recipe": recipe}
    one = merge_adapters(adapters, **settings, **more, scale=0.5, out=tmp_path / "one").out
    wanted = merge_adapters(adapters, **settings, **more, scale=1.75, out=tmp_path / "wanted").out
    (tmp_path / "other").mkdir()
    rescale_adapter(one, 3.5, tmp_path / "other")
    with open_adapter(tmp_path / "other") as ours, open_adapter(wanted) as theirs:
        for module in theirs.header.modules:
            mine, expected = ours.factors(module), theirs.factors(module)
            expected = (expected.B @ expected.A).numpy()
            # float32 in two orders of operations
            tolerance = 64 * np.finfo(np.float32).eps * np.abs(expected).max()
            assert np.allclose((mine.B @ mine.A).numpy(), expected, rtol=0, atol=tolerance)


def test_no_weight_is_touched(tmp_path) -> None:
    folder = save(tmp_path / "en", 0)
    (tmp_path / "other").mkdir()
    rescale_adapter(folder, 0.1, tmp_path / "other")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "other" / weights).read_bytes() == (folder / weights).read_bytes()
    before, after = (
        json.loads((one / "adapter_config.json").read_text())
        for one in (folder, tmp_path / "other")
    )
    assert after.pop("lora_alpha") == before.pop("lora_alpha") * 0.1
    assert after.pop("alpha_pattern") == before.pop("alpha_pattern", {})
    assert after == before
