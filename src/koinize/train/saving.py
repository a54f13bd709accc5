"""How far a training is, saved by time and when it is stopped, so that it goes on from there.

What is saved is all that the next optimizer step depends on: the factors, AdamW's two moments, the
best factors so far and the mean of the last ones, the random streams where dropout draws from them,
and the counts from which schedule and rows follow. It is one adapter's own, whether that learns
alone or beside others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from koinize import machine
from koinize.store.checkpoint import Attempt, Checkpoint, State

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

VALUE, FIRST, SECOND, BEST, MEAN = "value", "first", "second", "best", "mean"
"""Of every factor: itself, AdamW's moments, and where there are such, itself after the epoch that
is the best so far, and its mean over the last steps (float32)."""


@dataclass(frozen=True)
class Point:
    """A training between two optimizer steps. `tensors` has PART:FACTOR, and random:DEVICE."""

    losses: list[float]
    dev_losses: list[float]
    epoch: int  # epochs that are done, dev loss and all
    kept_epoch: int
    tokens: int
    planned: int
    dev_loss_before: float | None  # the first step
    tensors: Mapping[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part by what they belong to."""
        found = ((key.partition(":"), value) for key, value in self.tensors.items())
        return {rest: value for (part, _, rest), value in found if part == name}


def parted(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round."""
    return {f"{part}:{name}": value for name, value in tensors.items()}


@dataclass
class Saving:
    """Where and how often one training saves how far it is.

    `every` are the seconds whose work a kill may cost; `interval` is its name in the ledger and
    `units` the amount of its whole work, for whoever accounts for an attempt that was ended.
    """

    place: Checkpoint
    every: float
    interval: str = ""
    units: int = 0
    began: float = field(default_factory=time.monotonic)
    steps_before: int = 0
    tokens_before: int = 0

    def __post_init__(self) -> None:
        self._saved = self._looked = self.began

    def resume(self, planned: int, factors: Mapping[str, Tensor], *, random: bool) -> Point | None:
        """Where an earlier attempt was, on the CPU; None where there is none or it is of no use.

        `factors` are those of this training, by name: a point of others is not its own. `random`:
        whether it draws at random.
        """
        reached = self.place.read()
        if reached is None:
            return None
        try:
            tensors = load(self.place.content(reached))
        except (OSError, SafetensorError, ValueError):
            self.place.ignore("its tensors cannot be read")
            return None
        point = Point(
            reached["losses"],
            reached["dev_losses"],
            reached["epoch"],
            reached["kept_epoch"],
            reached["tokens"],
            reached["planned"],
            reached.get("dev_loss_before"),
            tensors,
        )
        if point.planned != planned or not _fits(point, factors, random=random):
            self.place.ignore("it is of another training")
            return None
        self.steps_before, self.tokens_before = len(point.losses), point.tokens
        return point

    def is_due(self) -> bool:
        """Whether waiting for the next step, if it takes as long as the last, would be too long.

        To be asked once after every step.
        """
        now = time.monotonic()
        took, self._looked = now - self._looked, now
        return now + took - self._saved >= self.every

    def save(self, point: Point) -> None:
        """Keep it in the place of what was saved before; a full disk costs a word and no more."""
        attempt: Attempt = {
            "interval": self.interval,
            "seconds": time.monotonic() - self.began,
            "steps": self.steps_before,
            "tokens": self.tokens_before,
        }
        state: State = {
            "steps": len(point.losses),
            "planned": point.planned,
            "epoch": point.epoch,
            "kept_epoch": point.kept_epoch,
            "tokens": point.tokens,
            "units": self.units,
            "losses": point.losses,
            "dev_losses": point.dev_losses,
            "dev_loss_before": point.dev_loss_before,
            "attempt": attempt,
        }
        tensors = {name: one.detach().cpu().contiguous() for name, one in point.tensors.items()}

        def fill(path: Path) -> None:
            save_file(tensors, path)

        try:
            with machine.undisturbed():
                self.place.write(state, fill)
        except (OSError, SafetensorError) as error:
            logger.warning("the checkpoint of %s cannot be written: %s", self.place.name, error)
        self._saved = self._looked = time.monotonic()

    @contextmanager
    def when_stopped(self, point: Callable[[], Point | None]) -> Iterator[None]:
        """Save the point at which a signal ends this block, and let the signal go on."""
        with machine.stoppable():
            try:
                yield
            except KeyboardInterrupt:
                with machine.undisturbed():
                    if reached := point():
                        self.save(reached)
                raise


def _fits(point: Point, factors: Mapping[str, Tensor], *, random: bool) -> bool:
    """Whether its tensors are those that a training of these factors saves."""

    def alike(part: str) -> bool:
        found = point.part(part)
        return found.keys() == factors.keys() and all(
            found[name].shape == one.shape
            and found[name].dtype == (torch.float32 if part == MEAN else one.dtype)
            for name, one in factors.items()
        )

    there = (VALUE, FIRST, SECOND, *(part for part in (BEST, MEAN) if point.part(part)))
    return all(map(alike, there)) and bool(point.part("random")) == random


RandomStreams = dict[str, Tensor]


def random_streams(device: torch.device) -> RandomStreams:
    """The state of torch's generators, of the CPU and of this device."""
    streams = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(device)
    return streams


def set_random_streams(streams: RandomStreams, device: torch.device) -> None:
    """The other way round; streams of another kind of device are left out."""
    torch.set_rng_state(streams["cpu"])
    if device.type == "cuda" and "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], device)
