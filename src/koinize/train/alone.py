"""Training: (base, examples, settings) -> one LoRA adapter in a PEFT folder.

One loop: batches of near-equal lengths, hidden states from the backbone, cross-entropy on the
target tokens only, AdamW. The loss of a step is the mean over all target tokens of its batch,
however the batch is cut into forward passes.

In a bfloat16 base the adapter's float32 factors stay the masters and only the products run in
bfloat16 (torch.autocast): small steps are not lost to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from koinize import machine
from koinize.model.encoding import buckets
from koinize.model.loaded import Loaded, pad, peak_bytes, reset_peak
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train.average import TailAverage
from koinize.train.budget import Budget
from koinize.train.lora import injected, layers_of, save, tensor_name
from koinize.train.report import Progress, TrainingReport, no_number, report_of
from koinize.train.saving import (
    BEST,
    FIRST,
    MEAN,
    SECOND,
    VALUE,
    Point,
    RandomStreams,
    Saving,
    parted,
    random_streams,
    set_random_streams,
)
from koinize.train.schedule import (
    Row,
    encode_rows,
    epoch_batches,
    planned_steps,
    rate,
    target_tokens,
)

if TYPE_CHECKING:
    from peft import PeftModel


def train(
    loaded: Loaded,
    train_examples: Sequence[Example],
    dev_examples: Sequence[Example],
    lora: LoraSpec,
    training: TrainingSpec,
    out: Path,
    progress: Progress | None = None,
    *,
    start: Path | None = None,
    saving: Saving | None = None,
) -> TrainingReport:
    """Trains one adapter and writes it to `out` as a PEFT folder; the base is left as it was.

    The result depends on the examples, not on their order, and on nothing random but the seeds.
    With `patience` the adapter of the best dev loss is written, else the last, or with `average`
    the mean over the last steps. `start` is the PEFT folder of an adapter to train on from, with a
    fresh optimizer, instead of a fresh one. With `saving` it goes on where an earlier attempt was,
    to what that would have become, and saves how far it is: by time, and when SIGINT or SIGTERM
    ends it (KeyboardInterrupt).
    `progress` gets (steps done, steps planned, loss). Raises InputError for unusable examples or
    targets, or a start of another shape than `lora`, and StepError when the loss is no longer a
    number.
    """
    started = time.perf_counter()
    reset_peak(loaded.device)
    rows, dev_rows = encode_rows(loaded, train_examples, dev_examples, training)
    with injected(loaded, lora, training, start) as peft_model:
        report = _Loop(loaded, peft_model, training, progress, saving).run(rows, dev_rows)
        layers = layers_of(peft_model).items()
        factors = {
            name: (one.lora_A["default"].weight, one.lora_B["default"].weight)
            for name, one in layers
        }
        save(loaded, peft_model.peft_config["default"], factors, out)
    return replace(
        report,
        seconds=time.perf_counter() - started,
        peak_bytes=peak_bytes(loaded.device),
        steps_before=saving.steps_before if saving else 0,
        tokens_before=saving.tokens_before if saving else 0,
    )


class _Loop:
    """The training loop and its state: the optimizer, the counts, the best adapter so far."""

    def __init__(
        self,
        loaded: Loaded,
        peft_model: PeftModel,
        training: TrainingSpec,
        progress: Progress | None,
        saving: Saving | None,
    ) -> None:
        self.loaded, self.training = loaded, training
        self.progress, self.saving = progress, saving
        self.budget = Budget(loaded.pass_tokens(training.pass_tokens))
        layers = layers_of(peft_model)
        self.factors: dict[str, Tensor] = {
            tensor_name(name, side): getattr(one, f"lora_{side}")["default"].weight
            for name, one in layers.items()
            for side in "AB"
        }
        self.parameters = list(self.factors.values())
        self.draws = any(one.training for one in layers.values())  # for dropout
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.losses: list[float] = []
        self.dev_losses: list[float] = []
        self.epoch = self.kept_epoch = 0  # epochs that are done, and the one that is kept
        self.tokens = 0  # that were seen, padding left out
        self.best: list[Tensor] = []
        self.before: float | None = None  # the dev loss before the first step
        self.streams: RandomStreams = {}

    def run(self, rows: list[Row], dev_rows: list[Row]) -> TrainingReport:
        self.planned = planned_steps(rows, self.training)
        self.tail = TailAverage(self.training.average, self.planned)
        self.before = self._first_dev_loss(dev_rows) if dev_rows else None
        self._resume()
        stopped = self.saving.when_stopped(self._point) if self.saving else nullcontext()
        with stopped:
            while not self._is_over():
                self._train_epoch(rows)
                self._end_epoch(dev_rows)
        self._restore_best()
        report = report_of(rows, self.epoch, self.losses, self.dev_losses, self.kept_epoch)
        return replace(report, dev_loss_before=self.before)

    def _train_epoch(self, rows: list[Row]) -> None:
        """The steps of this epoch that are left."""
        batches = epoch_batches(rows, self.training, self.epoch)
        done = len(self.losses) - self.epoch * len(batches)
        for batch in batches[done:]:
            self._step(batch)
            if self.saving and self.saving.is_due():
                self.saving.save(self._point())

    def _end_epoch(self, dev_rows: list[Row]) -> None:
        measured = []
        if dev_rows:
            loss = self.budget.fit(lambda: self._dev_loss(dev_rows), self._undo, dev_rows)
            measured.append(loss)
        with machine.undisturbed():
            self.dev_losses += measured
            self.epoch += 1
            if self.training.patience is None:
                self.kept_epoch = self.epoch
            elif self.dev_losses[-1] <= min(self.dev_losses):
                self.kept_epoch = self.epoch
                self.best = [parameter.detach().clone() for parameter in self.parameters]
            self._note_streams()

    def _is_over(self) -> bool:
        patience = self.training.patience
        waited = patience is not None and self.epoch - self.kept_epoch >= patience
        return waited or self.epoch == self.training.epochs

    def _step(self, batch: list[Row]) -> None:
        step = len(self.losses)
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * rate(step, self.planned, self.training)
        loss = self.budget.fit(lambda: self._gradients(batch), self._undo, batch)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm)
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            raise no_number(loss, float(norm), step, self.planned, self.tokens, batch)
        with machine.undisturbed():
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(loss)
            self.tail.take(step + 1, self.parameters)
            self.tokens += sum(row.tokens.longest for row in batch)
            self._note_streams()
        if self.progress:
            self.progress(step + 1, self.planned, loss)

    def _gradients(self, batch: list[Row]) -> float:
        """Adds the gradients of a batch, pass by pass; returns its loss."""
        targets, loss = target_tokens(batch), 0.0
        for part in self._passes(batch):
            machine.stop_if_asked()
            loss += self._backward(part, targets)
        return loss

    def _undo(self) -> None:
        """Be where the step began."""
        self.optimizer.zero_grad()
        if self.draws:
            set_random_streams(self.streams, self.loaded.device)

    def _backward(self, part: list[Row], batch_targets: int) -> float:
        """Adds one forward pass's share of the batch's gradient; returns its share of the loss."""
        hidden, targets = self._hidden(part)
        # The output layer goes piece by piece, each with its own backward pass, so that no more
        # than head_rows rows of logits ever live at once.
        rows = hidden.detach().requires_grad_()
        loss = 0.0
        for piece in self._losses(rows, targets):
            (piece / batch_targets).backward()  # type: ignore[no-untyped-call]
            loss += float(piece.detach())
        if hidden.requires_grad:  # not so when the output layer alone is adapted
            hidden.backward(rows.grad)  # type: ignore[no-untyped-call]
        return loss / batch_targets

    def _first_dev_loss(self, rows: list[Row]) -> float:
        """Before the first step; what is looked at moves no draw of dropout."""
        with torch.random.fork_rng():
            return self.budget.fit(lambda: self._dev_loss(rows), lambda: None, rows)

    @torch.no_grad()
    def _dev_loss(self, rows: list[Row]) -> float:
        loss = 0.0
        for part in self._passes(rows):
            loss += sum(float(piece) for piece in self._losses(*self._hidden(part)))
        return loss / target_tokens(rows)

    def _passes(self, rows: list[Row]) -> Iterator[list[Row]]:
        return buckets(rows, lambda row: row.tokens.longest, self.budget.tokens)

    def _hidden(self, part: list[Row]) -> tuple[Tensor, Tensor]:
        """Hidden states (n, hidden) that predict the part's n target tokens, and those tokens."""
        # Right padding needs no mask under causal attention.
        lines = [row.line for row in part]
        ids, _ = pad(lines, self.loaded.encoder.pad_token, self.loaded.device)
        chosen = torch.zeros_like(ids, dtype=torch.bool)
        for marks, row, line in zip(chosen, part, lines, strict=True):
            marks[len(row.tokens.prompt) - 1 : len(line)] = True
        targets = torch.tensor([token for row in part for token in row.target])
        with self.loaded.precision():
            hidden = self.loaded.backbone(input_ids=ids, use_cache=False).last_hidden_state
        return hidden[chosen], targets.to(self.loaded.device)

    def _losses(self, hidden: Tensor, targets: Tensor) -> Iterator[Tensor]:
        """Summed cross-entropies of successive pieces of the rows."""
        size = self.loaded.head_rows
        pieces = torch.split(hidden, size), torch.split(targets, size)
        for some, wanted in zip(*pieces, strict=True):
            with self.loaded.precision():
                logits = self.loaded.head(some)
            yield cross_entropy(logits, wanted, reduction="sum")

    @torch.no_grad()
    def _restore_best(self) -> None:
        for parameter, best in zip(self.parameters, self.best or self.parameters, strict=True):
            parameter.copy_(best)

    def _resume(self) -> None:
        """Go on where an earlier attempt was."""
        if self.saving:
            point = self.saving.resume(self.planned, self.factors, random=self.draws)
            if point:
                self._go_on_from(point)
        self._note_streams()

    @torch.no_grad()
    def _go_on_from(self, point: Point) -> None:
        self.losses, self.dev_losses = list(point.losses), list(point.dev_losses)
        self.epoch, self.kept_epoch, self.tokens = point.epoch, point.kept_epoch, point.tokens
        values, first, second = point.part(VALUE), point.part(FIRST), point.part(SECOND)
        device, steps = self.loaded.device, float(len(point.losses))
        for name, parameter in self.factors.items():
            parameter.copy_(values[name])
            self.optimizer.state[parameter] = {
                "step": torch.tensor(steps),
                "exp_avg": first[name].to(device),
                "exp_avg_sq": second[name].to(device),
            }
        best = point.part(BEST)
        self.best = [best[name].to(device) for name in self.factors] if best else []
        mean = point.part(MEAN)
        self.tail.mean = [mean[name].to(device) for name in self.factors] if mean else []
        if self.draws:
            set_random_streams(point.part("random"), device)

    def _note_streams(self) -> None:
        """Remember what the next draw at random depends on, where there is any."""
        if self.draws:
            self.streams = random_streams(self.loaded.device)

    def _point(self) -> Point:
        """Where it is. Within a step or an epoch's end nothing of this has moved yet."""
        moments = dict(zip(self.factors, self._moments(), strict=True))
        first = {name: one["exp_avg"] for name, one in moments.items()}
        second = {name: one["exp_avg_sq"] for name, one in moments.items()}
        best = dict(zip(self.factors, self.best, strict=True)) if self.best else {}
        mean = dict(zip(self.factors, self.tail.mean, strict=True)) if self.tail.mean else {}
        return Point(
            self.losses,
            self.dev_losses,
            self.epoch,
            self.kept_epoch,
            self.tokens,
            self.planned,
            self.before,
            parted(VALUE, self.factors)
            | parted(FIRST, first)
            | parted(SECOND, second)
            | parted(BEST, best)
            | parted(MEAN, mean)
            | parted("random", self.streams),
        )

    def _moments(self) -> Iterator[dict[str, Tensor]]:
        for parameter in self.parameters:
            zeros = {"exp_avg": torch.zeros_like(parameter)}  # before the first step
            zeros["exp_avg_sq"] = zeros["exp_avg"]
            yield self.optimizer.state.get(parameter) or zeros
