"""Where memory runs out, passes are cut in half, and the adapter is the one of smaller passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from koinize.errors import StepError
from koinize.settings import LoraSpec, TrainingSpec
from koinize.train import train, train_together
from tests.train.test_alone import factors
from tests.train.test_together import apart, loaded, rows, several

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
SPEC = TrainingSpec(epochs=2, batch_size=5, learning_rate=1e-2)


def limited(base, tokens: int, error: Exception, passes: list[int]) -> None:
    """Let the base run out of memory in passes of more tokens, in the middle of them."""

    def look(_module, _arguments, named) -> None:
        size = named["input_ids"].numel()
        passes.append(size)
        if size > tokens:
            raise error

    base.backbone.register_forward_pre_hook(look, with_kwargs=True)


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: type(one).__name__)
def test_it_goes_on_with_half_a_pass_and_says_so_once(tmp_path, caplog, error):
    base, passes = loaded(), []
    limited(base, 40, error, passes)
    report = train(base, rows("en", 10), rows("en", 4), LoraSpec(r=2), SPEC, tmp_path / "out")
    assert report.steps == 4
    assert max(passes[5:]) <= 40 < max(passes)
    said = [one.getMessage() for one in caplog.records]
    assert said == [
        "memory ran out: passes are cut in half, to 512 tokens now; set training.batch_tokens "
        "to begin with that, which changes no identity"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_adapter_is_that_of_smaller_passes_from_the_beginning(tmp_path, dropout):
    """1024 is halved to 32, since longer passes do not fit; nothing of the broken ones is left."""
    lora = LoraSpec(r=2, dropout=dropout)
    small = SPEC.model_copy(update={"batch_tokens": 32})
    examples = rows("en", 10), rows("en", 4)
    expected = train(loaded(), *examples, lora, small, tmp_path / "small")
    base = loaded()
    limited(base, 32, ERRORS[0], [])
    report = train(base, *examples, lora, SPEC, tmp_path / "out")
    assert report.losses == expected.losses
    assert report.dev_losses == expected.dev_losses
    one, other = factors(tmp_path / "small"), factors(tmp_path / "out")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_dev_loss_before_the_first_step_is_cut_as_well(tmp_path, dropout):
    """Nothing was trained when memory runs out, and no stream of draws was noted yet."""
    base, passes, lora = loaded(), [], LoraSpec(r=2, dropout=dropout)
    limited(base, 40, ERRORS[0], passes)
    report = train(base, rows("en", 10), rows("en", 20), lora, SPEC, tmp_path / "out")
    assert passes[0] > 40
    assert report.dev_loss_before is not None


def test_a_row_that_does_not_fit_alone_is_told(tmp_path):
    base = loaded()
    limited(base, 5, ERRORS[1], [])
    with pytest.raises(StepError) as caught:
        train(base, rows("en", 10), (), LoraSpec(r=2), SPEC, tmp_path / "out")
    assert str(caught.value).startswith("memory ran out on a single row of ")
    assert "lower training.max_length" in str(caught.value)


def test_another_error_is_no_lack_of_memory(tmp_path):
    base = loaded()
    limited(base, 5, RuntimeError("shapes do not match"), [])
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(base, rows("en", 10), (), LoraSpec(r=2), SPEC, tmp_path / "out")


@pytest.mark.slow
def test_adapters_that_share_passes_share_smaller_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("koinize.train.together.on_accelerator", lambda _: True)
    base = loaded()
    train_together(base, several(tmp_path / "whole"))
    passes: list[int] = []
    limited(base, 60, ERRORS[0], passes)
    train_together(base, several(tmp_path / "out"))
    assert max(passes) > 60
    assert sum(one > 60 for one in passes) < 8
    for one in several(tmp_path / "out"):
        # Sums in another order: as in test_together.
        assert apart(one.out, tmp_path / "whole" / one.name) < 50 * 2**-23


@pytest.mark.slow
def test_the_first_dev_losses_of_several_are_cut_as_well(tmp_path):
    base, passes = loaded(), []
    limited(base, 60, ERRORS[0], passes)
    one, *others = several(tmp_path / "out")
    many = replace(one, dev_examples=rows("en", 20))
    reports = train_together(base, [many, *others])
    assert max(passes) > 60
    assert reports[0].dev_loss_before is not None
