"""What a training run says of itself, while it runs and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from koinize.errors import StepError
from koinize.train.schedule import Row

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps planned, loss)."""

SHOWN_ROWS = 8


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What one training run did. Losses are mean natural-log losses per target token."""

    steps: int
    examples: int
    truncated: int  # examples whose prompt lost tokens to max_length
    tokens: int  # real tokens seen, padding left out, over all epochs
    target_tokens: int  # those among them that a loss was computed for
    losses: tuple[float, ...]  # one per optimizer step
    dev_losses: tuple[float, ...]  # one per epoch; empty without dev examples
    kept_epoch: int  # the epoch, from 1, whose adapter was written
    seconds: float  # of the attempt that ended it, where earlier ones were killed
    peak_bytes: int
    steps_before: int = 0  # that earlier attempts had done
    tokens_before: int = 0  # and had seen
    dev_loss_before: float | None = None  # the first step; None without dev examples


class NoNumberError(StepError):
    """A loss or a gradient is no longer finite, after so many `steps` of those `planned`, which saw
    so many `tokens`.
    """

    steps: int = 0
    planned: int = 1
    tokens: int = 0


def report_of(
    rows: Sequence[Row],
    epochs: int,
    losses: Sequence[float],
    dev_losses: Sequence[float],
    kept_epoch: int,
) -> TrainingReport:
    """The report of `epochs` passes over the rows; time and memory are not known yet."""
    return TrainingReport(
        steps=len(losses),
        examples=len(rows),
        truncated=sum(row.tokens.truncated for row in rows),
        tokens=epochs * sum(row.tokens.longest for row in rows),
        target_tokens=epochs * sum(len(row.target) for row in rows),
        losses=tuple(losses),
        dev_losses=tuple(dev_losses),
        kept_epoch=kept_epoch,
        seconds=0.0,
        peak_bytes=0,
    )


def no_number(
    loss: float, norm: float, steps: int, planned: int, tokens: int, batch: Sequence[Row]
) -> NoNumberError:
    """The error for a step whose loss or gradient is no longer finite, after so many others."""
    keys = [row.identity[1] for row in batch]
    shown = ", ".join(keys[:SHOWN_ROWS])
    more = f" and {len(keys) - SHOWN_ROWS} more" if len(keys) > SHOWN_ROWS else ""
    error = NoNumberError(
        f"the loss is {loss} and its gradient's norm {norm} at step {steps + 1}, on the rows "
        f"{shown}{more}",
        remedy="lower training.learning_rate, or use dtype bfloat16 or float32",
    )
    error.steps, error.planned, error.tokens = steps, planned, tokens
    return error
