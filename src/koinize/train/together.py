"""Many adapters, one base, one process: a batch mixes the rows of several adapters.

Each step takes the next optimizer batch of every adapter that still learns. Their rows share the
forward passes (`koinize.model.stacked`); loss, clipping, AdamW, schedule, dev loss and early stop
are each adapter's own, and so it becomes what it would have become alone, to the dtype's rounding.

A GPU that trains one adapter on short rows waits for the host, kernel after kernel; the same
kernels do for many adapters. So nothing here waits for the device in a step: losses stay there and
are read together, every READ_EVERY steps and at the ends of epochs. A CPU gains little by passes
that are larger than one adapter's, and they take memory: there, adapters join only to fill one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from koinize import machine
from koinize.errors import KoinizeError
from koinize.model.encoding import buckets
from koinize.model.loaded import Loaded, peak_bytes, reset_peak, send
from koinize.model.stacked import Slots, Working
from koinize.train.alone import train
from koinize.train.budget import Budget
from koinize.train.buffers import Buffers
from koinize.train.learner import Learner, Training
from koinize.train.lora import Frame, Frames, first_factors, save
from koinize.train.passes import Batch, Share, grouped, largest, length
from koinize.train.report import Progress, TrainingReport
from koinize.train.saving import Point
from koinize.train.schedule import Row, encode_rows, target_tokens

# Steps whose losses may lie unread on an accelerator; one that is no number is found when read.
READ_EVERY = 50

Outcome = TrainingReport | KoinizeError
Ended = Callable[[int, Outcome, float], None]
"""Called with (place of the training, its outcome, its seconds) as soon as it is over."""


def train_together(
    loaded: Loaded,
    trainings: Sequence[Training],
    progress: Progress | None = None,
    ended: Ended | None = None,
) -> list[Outcome]:
    """Trains many adapters at once, each as `train` would; the base is left as it was.

    The adapters may differ in everything. One that fails (InputError, StepError) leaves its error
    in the list and the others go on; one that ends early leaves its share of the passes to them.
    What cannot share a pass is trained alone, after the others: dropout, factors in bfloat16, and
    layers that do not see a batch sequence by sequence (the output layer, experts).
    On an accelerator a pass holds as many padded tokens as all their `batch_tokens` together.
    `progress` gets (steps done, steps planned, mean loss) of all adapters together. A report's
    `seconds` are the adapter's share of the time: that of each step is shared out by the tokens
    that passed the model in it. `peak_bytes` are those of all until then. `ended` may keep an
    adapter before the others end; a time that it takes is shared by those that go on.
    What has `saving` goes on where an earlier attempt was, alone or beside others, and is saved.
    """
    began = time.perf_counter()
    reset_peak(loaded.device)
    frames = Frames(loaded)
    outcomes: dict[int, Outcome] = {}

    def over(index: int, outcome: Outcome, seconds: float) -> None:
        outcomes[index] = outcome
        if ended:
            ended(index, outcome, seconds)

    learners: dict[int, Learner] = {}
    for index, training in enumerate(trainings):
        try:
            if (frame := frames.of(training.lora, training.settings)) is not None:
                learners[index] = _prepare(loaded, training, frame)
        except KoinizeError as error:
            over(index, error, 0.0)
    if learners:
        _Loop(loaded, learners, progress, over, began).run()
    for index in range(len(trainings)):
        if index not in outcomes:
            began = time.perf_counter()
            outcome = _alone(loaded, trainings[index], progress)
            over(index, outcome, time.perf_counter() - began)
    return [outcomes[index] for index in range(len(trainings))]


def _prepare(loaded: Loaded, training: Training, frame: Frame) -> Learner:
    rows, dev_rows = encode_rows(
        loaded, training.train_examples, training.dev_examples, training.settings
    )
    scales = dict.fromkeys(frame.shapes, frame.scale)
    first = first_factors(frame.shapes, scales, training.lora, training.start)
    return Learner(training, frame, first, rows, dev_rows)


def _alone(loaded: Loaded, one: Training, progress: Progress | None) -> Outcome:
    examples = one.train_examples, one.dev_examples
    try:
        return train(
            loaded,
            *examples,
            one.lora,
            one.settings,
            one.out,
            progress,
            start=one.start,
            saving=one.saving,
        )
    except KoinizeError as error:
        return error


class _Loop:
    """The adapters that still learn, and what is done to all of them at once."""

    def __init__(
        self,
        loaded: Loaded,
        places: Mapping[int, Learner],
        progress: Progress | None,
        over: Ended,
        began: float,
    ) -> None:
        self.loaded, self.progress, self.over = loaded, progress, over
        self.places = {learner: place for place, learner in places.items()}
        learners = list(places.values())
        self.learners, self.live = learners, list(learners)
        self.shared_until = began
        self.buffers = Buffers(learners, loaded.device)
        self.slots = Slots(loaded.model, self.buffers.layout.shapes)
        self.accelerated = on_accelerator(loaded.device)
        self.unread: list[Tensor] = []
        # What one adapter may put into a pass, times the adapters: also when some have ended.
        tokens = sum(one.settings.pass_tokens for one in learners)
        self.budget = Budget(loaded.pass_tokens(tokens))

    def run(self) -> None:
        """Trains and writes all of them."""
        with self.slots.hooked(), warnings.catch_warnings(), ExitStack() as stack:
            # An adapter's row keeps its factors together and not each layer's, as torch expects.
            warnings.filterwarnings("ignore", message="grad and param do not obey")
            for one in self.learners:
                if one.training.saving:
                    point = partial(self._point, one)
                    stack.enter_context(one.training.saving.when_stopped(point))
            fresh = [one for one in self.live if one.dev_rows and not one.steps]
            for one, loss in zip(fresh, self._measured(fresh), strict=True):
                one.dev_loss_before = loss
            self._end(self.live)
            while self.live:
                self._step()
                self._end(self.live)
                self._save()

    def _end(self, some: list[Learner]) -> None:
        """End the epochs that are over, and what has to end with them."""
        ended = [one for one in some if one.at_epochs_end]
        failed = any(one.outcome is not None for one in some)  # as was found when it was saved
        if ended or failed or not self.accelerated or len(self.unread) == READ_EVERY:
            self._read()
        self._end_epoch([one for one in ended if one.outcome is None])
        for one in some:
            if one.outcome is None and one.is_over:
                self._finish(one)
        self._share_out_time()
        self._drop()

    def _save(self) -> None:
        """Save those for which it is time."""
        for one in self.live:
            if one.training.saving and one.training.saving.is_due():
                self._save_one(one)

    def _save_one(self, one: Learner) -> None:
        point = self._point(one)
        if one.training.saving and point:
            one.training.saving.save(point)

    def _point(self, one: Learner) -> Point | None:
        """Where one is, between two steps; None where there is nothing to go on with."""
        self._read()
        if one not in self.live or isinstance(one.outcome, KoinizeError):
            return None
        return one.point(self.buffers.tensors(one, self.live.index(one)))

    def _step(self) -> None:
        batches = [one.next_batch() for one in self.live]
        weights = [1 / target_tokens(batch) for batch in batches]
        losses = torch.zeros(len(self.live), device=self.loaded.device)
        self.buffers.gradients.zero_()

        def undo() -> None:
            self._free()
            losses.zero_()

        def learn() -> None:
            for shares in self._passes(dict(enumerate(batches))):
                machine.stop_if_asked()
                self._learn(shares, weights, losses)

        self.budget.fit(learn, undo, [row for batch in batches for row in batch])
        norms = self.buffers.clip([one.settings.max_grad_norm for one in self.live])
        with machine.undisturbed():
            self.buffers.optimizer.step(
                self.buffers.gradients,
                rates=[one.rate for one in self.live],
                decays=[one.settings.weight_decay for one in self.live],
                steps=[one.steps for one in self.live],
            )
            for values, one in zip(self.buffers.values, self.live, strict=True):
                one.tail.take(one.steps, [values])
            self.unread.append(torch.stack([losses, norms]))

    def _free(self) -> None:
        """Give back what a pass that was broken off holds, and its share of the gradients."""
        self.slots.current = None
        self.buffers.gradients.zero_()

    def _passes(self, rows: Mapping[int, list[Row]]) -> Iterator[list[Share]]:
        """Cuts the rows of adapters, by their places, into passes within the budget."""
        own = {
            place: max(self.budget.tokens // len(rows), self.live[place].settings.pass_tokens)
            for place in rows
        }
        cut = [
            [(place, part) for part in buckets(some, length, min(self.budget.tokens, own[place]))]
            for place, some in rows.items()
        ]
        for parts in zip_longest(*cut):
            shares = [part for part in parts if part is not None]
            # An adapter's rows come longest first; neighbours in length share a pass.
            shares.sort(key=lambda share: length(share[1][0]))
            yield from grouped(shares, self.budget.tokens if self.accelerated else largest(shares))

    def _learn(self, shares: list[Share], weights: list[float], losses: Tensor) -> None:
        """Adds one pass's share to the gradients, and to the losses (adapters that learn,)."""
        members, working = self._put(shares)
        batch = self._batch(shares, weights)
        hidden = self._hidden(batch)
        # The output layer goes piece by piece, each with its own backward pass, so that no more
        # than head_rows rows of logits ever live at once.
        rows = hidden.detach().requires_grad_()
        for owners, piece in self._losses(rows, batch):
            piece.sum().backward()  # type: ignore[no-untyped-call]
            losses.index_add_(0, owners, piece.detach())
        hidden.backward(rows.grad)  # type: ignore[no-untyped-call]
        self.buffers.gradients.index_add_(0, members, working.gradients.float())

    @torch.no_grad()
    def _put(self, shares: list[Share]) -> tuple[Tensor, Working]:
        """Makes the factors of a pass's adapters current; their places (n,) on the device."""
        device = self.loaded.device
        members = send(torch.tensor([place for place, _ in shares]), device)
        working = self.slots.current
        if working is None or len(working.values) != len(shares):
            layout, dtype = self.buffers.layout, self.loaded.dtype
            working = Working(layout, len(shares), dtype, device, learn=True)
            self.slots.current = working
        working.values.copy_(self.buffers.scaled(members))
        working.gradients.zero_()
        return members, working

    def _batch(self, shares: list[Share], weights: Sequence[float]) -> Batch:
        height = max(len(rows) for _, rows in shares)
        width = max(len(row.line) for _, rows in shares for row in rows)
        ids = np.full((len(shares) * height, width), self.loaded.encoder.pad_token)
        places: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        for number, (owner, rows) in enumerate(shares):
            for at, row in enumerate(rows, number * height):
                line = row.line
                ids[at, : len(line)] = line
                first = at * width + len(row.tokens.prompt) - 1
                places += range(first, first + len(row.target))
                targets += row.target
                owners += [owner] * len(row.target)
        device = self.loaded.device
        sent = send(torch.tensor([places, targets, owners]), device)
        each = send(torch.tensor([weights[owner] for owner in owners]), device)
        return Batch(send(torch.from_numpy(ids), device), sent[0], sent[1], sent[2], each)

    def _hidden(self, batch: Batch) -> Tensor:
        """Hidden states (n, hidden) that predict the n target tokens."""
        # Right padding needs no mask under causal attention.
        with self.loaded.precision():
            output = self.loaded.backbone(input_ids=batch.ids, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states.flatten(0, 1).index_select(0, batch.places)

    def _losses(self, hidden: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Successive pieces of the weighted cross-entropies, and whose they are."""
        size = self.loaded.head_rows
        parts = (hidden, batch.targets, batch.owners, batch.weights)
        for some, wanted, owners, weights in zip(
            *(torch.split(part, size) for part in parts), strict=True
        ):
            with self.loaded.precision():
                logits = self.loaded.head(some)
            yield owners, cross_entropy(logits, wanted, reduction="none") * weights

    def _read(self) -> None:
        """Fetches the losses that lie on the device; ends adapters with one that is no number."""
        if not self.unread:
            return
        with machine.undisturbed():
            for losses, norms in torch.stack(self.unread).tolist():
                for one, loss, norm in zip(self.live, losses, norms, strict=True):
                    one.read(loss, norm)
                self._tell()
            self.unread = []

    def _tell(self) -> None:
        last = [one.losses[-1] for one in self.live if one.outcome is None]
        if self.progress and last:
            done = sum(len(one.losses) for one in self.learners)
            planned = sum(
                one.planned if one.outcome is None else len(one.losses) for one in self.learners
            )
            self.progress(done, planned, sum(last) / len(last))

    def _end_epoch(self, ended: list[Learner]) -> None:
        measured = [one for one in ended if one.dev_rows]
        losses = self._measured(measured)
        with machine.undisturbed():
            for one, loss in zip(measured, losses, strict=True):
                one.dev_losses.append(loss)
                one.passed += sum(length(row) for row in one.dev_rows)
            for one in ended:
                one.end_epoch(self.buffers.values[self.live.index(one)])

    def _measured(self, some: list[Learner]) -> list[float]:
        """The dev losses of these, which have dev rows."""
        rows = [row for one in some for row in one.dev_rows]
        return self.budget.fit(lambda: self._dev_losses(some), self._free, rows) if some else []

    @torch.no_grad()
    def _dev_losses(self, measured: list[Learner]) -> list[float]:
        rows = {self.live.index(one): one.dev_rows for one in measured}
        weights = [1 / max(1, target_tokens(one.dev_rows)) for one in self.live]
        losses = torch.zeros(len(self.live), device=self.loaded.device)
        for shares in self._passes(rows):
            self._put(shares)
            batch = self._batch(shares, weights)
            for owners, piece in self._losses(self._hidden(batch), batch):
                losses.index_add_(0, owners, piece)
        found: list[float] = losses.tolist()
        return [found[place] for place in rows]

    def _finish(self, one: Learner) -> None:
        """Write an adapter; what it was is saved, too, as long as others may still be killed."""
        if len(self.live) > 1:
            self._save_one(one)
        values = self.buffers.values[self.live.index(one)] if one.best is None else one.best
        save(self.loaded, one.frame.config, self.buffers.pairs(one, values), one.training.out)
        one.outcome = one.report()

    def _share_out_time(self) -> None:
        """Gives each adapter its part of the seconds since the last time, by tokens."""
        now = time.perf_counter()
        tokens = max(1, sum(one.passed for one in self.live))
        for one in self.live:
            one.seconds += (now - self.shared_until) * one.passed / tokens
            one.passed = 0
        self.shared_until = now

    def _drop(self) -> None:
        """Hands over what has finished or failed, and takes it out of the buffers."""
        kept = [place for place, one in enumerate(self.live) if one.outcome is None]
        if len(kept) == len(self.live):
            return
        for one in self.live:
            outcome = one.outcome
            if isinstance(outcome, TrainingReport):
                peak = peak_bytes(self.loaded.device)
                outcome = replace(outcome, seconds=one.seconds, peak_bytes=peak)
            if outcome is not None:
                self.over(self.places[one], outcome, one.seconds)
                one.best = None
        rows = send(torch.tensor(kept, dtype=torch.long), self.loaded.device)
        with machine.undisturbed():
            self.live = [self.live[place] for place in kept]
            self.buffers.keep(rows)
            self.slots.current = None


def on_accelerator(device: torch.device) -> bool:
    """Whether the device works while the host goes on, and gains by larger passes."""
    return device.type != "cpu"
