"""The tail average against arithmetic, and against trainings that ended earlier."""

from __future__ import annotations

import pytest
import torch

from koinize.settings import TrainingSpec, UpdateSpec
from koinize.train.average import TailAverage
from tests.train.test_alone import examples, factors, fit


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, 10.0),  # the last step alone
        (0.1, 10.0),
        (0.3, 9.0),  # of 8, 9 and 10
        (1.0, 5.5),
        (0.001, 10.0),  # never fewer than one
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_last_step_leaves_the_mean(share, expected, dtype):
    tail, parameter = TailAverage(share, 10), torch.zeros(2, dtype=dtype)
    for step in range(1, 11):
        parameter.fill_(step)
        tail.take(step, [parameter])
        if step < 10:
            assert parameter.tolist() == [step, step]  # the training goes on from where it was
    assert parameter.tolist() == pytest.approx([expected] * 2)


def test_the_mean_is_kept_in_float32():
    """In bfloat16 a mean of 1 and 1 + 1/128 over 200 steps would stay where it was."""
    tail, parameter = TailAverage(1.0, 200), torch.ones(1, dtype=torch.bfloat16)
    for step in range(1, 201):
        parameter.fill_(1 + (step > 100) / 128)
        tail.take(step, [parameter])
    assert tail.mean[0].dtype == torch.float32
    assert tail.mean[0].item() == pytest.approx(1 + 1 / 256, abs=1e-6)


@pytest.mark.slow
def test_a_training_writes_the_mean_of_what_its_last_steps_would_have_written(tmp_path):
    """At a constant rate a longer training is a shorter one that went on."""
    base = {"schedule": "constant", "warmup_ratio": 0.0, "batch_size": 64, "learning_rate": 1e-2}
    rows, ends = examples(), []
    for epochs in (1, 2, 3):
        out = tmp_path / str(epochs)
        fit(out, rows, TrainingSpec(epochs=epochs, **base))
        ends.append(factors(out))
    report = fit(tmp_path / "mean", rows, TrainingSpec(epochs=3, average=0.67, **base), dev=rows)
    for name, found in factors(tmp_path / "mean").items():
        expected = (ends[1][name] + ends[2][name]) / 2
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert not torch.equal(found, ends[2][name])
    # The last dev loss is that of what is written: another training's, whose start it is.
    again = fit(
        tmp_path / "again",
        rows,
        TrainingSpec(epochs=1, **{**base, "learning_rate": 1e-12}),
        dev=rows,
        start=tmp_path / "mean",
    )
    assert report.dev_losses[-1] == pytest.approx(again.dev_losses[0], rel=1e-5)


def test_an_update_that_stops_early_has_no_tail():
    training = TrainingSpec(average=0.2)
    assert training.continued.average == 0.0
    assert training.branched.average == 0.2
    without = training.model_copy(update={"update": UpdateSpec(patience=None)})
    assert without.continued.average == 0.2


def test_it_identifies_a_training_that_has_one():
    assert TrainingSpec(average=0.0).identity == TrainingSpec().identity
    assert TrainingSpec(average=0.2).identity != TrainingSpec().identity
