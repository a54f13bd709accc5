"""Gradient checkpointing changes no number; it runs each layer a second time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from koinize.digest import file_digest
from koinize.errors import InputError
from koinize.model.loaded import Loaded
from koinize.settings import LoraSpec
from koinize.train import train, train_together
from koinize.train.recompute import layers_of, recomputing
from tests.train.test_experts import EXPERTS, ROWS, TRAINING
from tests.train.test_experts import base as mixture  # noqa: F401 - a fixture
from tests.train.test_saving import EARLY, dev, loaded, rows
from tests.train.test_together import several

WEIGHTS = "adapter_model.safetensors"


def passes(base: Loaded) -> list[bool]:
    """Notes each time that the first layer's attention is run, and whether for a way back."""
    seen: list[bool] = []
    [module] = [one for name, one in base.model.named_modules() if name.endswith("0.self_attn")]
    module.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "llama"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_adapter_has_the_same_bytes(tmp_path: Path, family: str, dropout: float) -> None:
    base, lora = loaded(family=family), LoraSpec(r=2, dropout=dropout)
    seen = passes(base)
    plain = train(base, rows(), dev(), lora, EARLY, tmp_path / "plain")
    once = list(seen)
    seen.clear()
    with recomputing(base.backbone):
        again = train(base, rows(), dev(), lora, EARLY, tmp_path / "again")
    assert again.losses == plain.losses
    assert again.dev_losses == plain.dev_losses
    assert file_digest(tmp_path / "again" / WEIGHTS) == file_digest(tmp_path / "plain" / WEIGHTS)
    assert seen.count(True) == 2 * once.count(True)
    assert seen.count(False) == once.count(False)  # a dev loss has no way back
    assert not [one for one in layers_of(base.model) if "forward" in vars(one)]


@pytest.mark.slow
def test_many_at_once_have_the_same_bytes(tmp_path: Path) -> None:
    base = loaded()
    train_together(base, several(tmp_path / "plain"))
    seen = passes(base)
    with recomputing(base.backbone):
        train_together(base, several(tmp_path / "again"))
    assert seen.count(True) > 0
    for one in (tmp_path / "plain").iterdir():
        assert file_digest(tmp_path / "again" / one.name / WEIGHTS) == file_digest(one / WEIGHTS)


def test_experts_have_the_same_bytes(tmp_path: Path, mixture: Loaded) -> None:  # noqa: F811
    for name in ("plain", "again"):
        (tmp_path / name).mkdir()
    train(mixture, ROWS, [], EXPERTS, TRAINING, tmp_path / "plain")
    with recomputing(mixture.backbone):
        train(mixture, ROWS, [], EXPERTS, TRAINING, tmp_path / "again")
    assert file_digest(tmp_path / "again" / WEIGHTS) == file_digest(tmp_path / "plain" / WEIGHTS)


def test_a_model_without_such_layers_is_refused() -> None:
    with (
        pytest.raises(InputError, match="no layers that could be run again"),
        recomputing(nn.Linear(2, 2)),
    ):
        pass
