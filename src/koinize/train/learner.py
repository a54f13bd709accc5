"""One of several adapters while they are trained together: what is its own, and stays on the host.

Its rows in their order, its counts and losses, and whether it goes on after an epoch. Its factors
lie with those of the others, in one buffer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from koinize.errors import KoinizeError
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train.average import TailAverage
from koinize.train.lora import Frame, Pair, tensor_name
from koinize.train.report import TrainingReport, no_number, report_of
from koinize.train.saving import Point, Saving
from koinize.train.schedule import Row, epoch_batches, planned_steps, rate


@dataclass(frozen=True)
class Training:
    """One adapter to be trained: the arguments of `train`, and a name for whoever asked for it."""

    name: str
    train_examples: Sequence[Example]
    dev_examples: Sequence[Example]
    lora: LoraSpec
    settings: TrainingSpec
    out: Path
    start: Path | None = None
    saving: Saving | None = None


@dataclass(eq=False)
class Learner:
    """A training and how far it is. `outcome` is None until it has finished or failed."""

    training: Training
    frame: Frame
    first: Iterator[tuple[str, Pair]]  # to be read once
    rows: list[Row]
    dev_rows: list[Row]
    losses: list[float] = field(default_factory=list)
    dev_losses: list[float] = field(default_factory=list)
    dev_loss_before: float | None = None  # the first step
    epoch: int = 0  # epochs that are done
    kept_epoch: int = 0
    best: Tensor | None = None  # its row of the buffer after the kept epoch; None for the last
    passed: int = 0  # tokens of it, padding left out, since time was last shared out
    seconds: float = 0.0  # its share of the time
    outcome: TrainingReport | KoinizeError | None = None

    def __post_init__(self) -> None:
        self.planned = planned_steps(self.rows, self.settings)
        self.tail = TailAverage(self.settings.average, self.planned)
        self._batches = self._in_order()
        self._taken: list[list[Row]] = []
        self._left = 0

    @property
    def settings(self) -> TrainingSpec:
        """Of its training."""
        return self.training.settings

    @property
    def steps(self) -> int:
        """Optimizer steps that were begun, also those whose loss was not read yet."""
        return len(self._taken)

    @property
    def rate(self) -> float:
        """The learning rate of the step that was begun last."""
        return self.settings.learning_rate * rate(self.steps - 1, self.planned, self.settings)

    @property
    def at_epochs_end(self) -> bool:
        """Whether the step that was begun last is the last of an epoch that is not ended yet."""
        epoch = self.planned // self.settings.epochs
        return not self._left and self.steps > self.epoch * epoch

    def next_batch(self) -> list[Row]:
        """Begins an optimizer step: its rows."""
        batch = next(self._batches)
        self._taken.append(batch)
        self.passed += sum(row.tokens.longest for row in batch)
        return batch

    def resume(self) -> Point | None:
        """Be where an earlier attempt was, if there was one; its tensors are the loop's to use."""
        if self.training.saving is None:
            return None
        shapes = self.frame.shapes.items()
        factors = {
            tensor_name(name, side): torch.empty(shape, device="meta")
            for name, (rank, inputs, outputs) in shapes
            for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank)))
        }
        point = self.training.saving.resume(self.planned, factors, random=False)
        if point:
            for _ in point.losses:
                self.next_batch()
            self.losses, self.dev_losses = list(point.losses), list(point.dev_losses)
            self.epoch, self.kept_epoch, self.passed = point.epoch, point.kept_epoch, 0
            self.dev_loss_before = point.dev_loss_before
        return point

    def point(self, tensors: Mapping[str, Tensor]) -> Point:
        """How far it is, with these tensors; steps whose loss was not read do not count."""
        counts = self.epoch, self.kept_epoch, self._seen(), self.planned
        return Point(self.losses, self.dev_losses, *counts, self.dev_loss_before, tensors)

    def _seen(self) -> int:
        """Tokens of the steps whose loss was read, padding left out."""
        done = self._taken[: len(self.losses)]
        return sum(row.tokens.longest for batch in done for row in batch)

    def _in_order(self) -> Iterator[list[Row]]:
        for epoch in range(self.settings.epochs):
            batches = epoch_batches(self.rows, self.settings, epoch)
            for number, batch in enumerate(batches, 1):
                self._left = len(batches) - number
                yield batch

    def read(self, loss: float, norm: float) -> None:
        """Takes the loss and gradient's norm of the next step; the first that is no number is its
        end, and those after it mean nothing.
        """
        if self.outcome is not None:
            return
        if not (math.isfinite(loss) and math.isfinite(norm)):
            step = len(self.losses)
            counts = step, self.planned, self._seen()
            self.outcome = no_number(loss, norm, *counts, self._taken[step])
            return
        self.losses.append(loss)

    def end_epoch(self, values: Tensor) -> None:
        """Ends an epoch, after its dev loss, with its row of the buffer."""
        self.epoch += 1
        if self.settings.patience is None:
            self.kept_epoch = self.epoch
        elif self.dev_losses[-1] <= min(self.dev_losses):
            self.kept_epoch, self.best = self.epoch, values.clone()

    @property
    def is_over(self) -> bool:
        """Whether the epoch that was ended last is its last."""
        patience = self.settings.patience
        waited = patience is not None and self.epoch - self.kept_epoch >= patience
        return waited or self.epoch == self.settings.epochs

    def report(self) -> TrainingReport:
        """What it did; time and memory are not known yet."""
        report = report_of(self.rows, self.epoch, self.losses, self.dev_losses, self.kept_epoch)
        saving = self.training.saving
        return replace(
            report,
            dev_loss_before=self.dev_loss_before,
            steps_before=saving.steps_before if saving else 0,
            tokens_before=saving.tokens_before if saving else 0,
        )
