"""Trainings that ended badly, and their repetition with other seeds (decision 019).

Every try is a training like any other: a step with an identity of its own. Whether there is another
one follows from what the store has: the first is the training as it is without `training.retries`,
and each next one is planned when the last ended badly on dev. The one with the lowest dev loss
stands in the training's place. As long as that is open, what needs the adapter waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from koinize.digest import digest
from koinize.errors import InputError
from koinize.ledger.address import NOBODY, System
from koinize.pipeline.lineage import History
from koinize.pipeline.step import NO_NUMBER, TRY, Step
from koinize.settings import MOST_RETRIES
from koinize.store import Store


def ended_badly(facts: Mapping[str, Any]) -> str:
    """Why a training with these facts ended badly; empty where dev does not show that."""
    if said := facts.get(NO_NUMBER):
        return str(said)
    if not facts.get("dev_losses"):
        return ""
    after, before = dev_loss(facts), facts.get("dev_loss_before")
    if before is not None and after > before:
        return f"its dev loss rose to {after:.4g}, from {before:.4g} before its first step"
    return ""


def dev_loss(facts: Mapping[str, Any]) -> float:
    """That of the adapter that was kept; endless where there is none, or it is no number."""
    losses = facts.get("dev_losses")
    found = float(losses[facts["kept_epoch"] - 1]) if losses else math.inf
    return math.inf if math.isnan(found) else found


@dataclass(frozen=True)
class _Try:
    """One that was made."""

    step: Step
    facts: Mapping[str, Any]


class Tries:
    """Those at one task's trainings."""

    def __init__(self, history: History, retries: int) -> None:
        self.history, self.retries = history, retries
        self.open: set[str] = set()
        """The ids of trainings whose place another try may take."""
        self._others: dict[str, Step] = {}

    def take(self) -> Iterator[Step]:
        """The tries besides those that stand in a training's place."""
        others, self._others = self._others, {}
        yield from others.values()

    def settle(self, step: Step, *, todays: bool) -> Step:
        """The try that stands in the place of this training, as far as that is known.

        `todays`: whether it is one on today's rows, so that it could be tried again.
        """
        decided = TRY in step.inputs  # by its name in the store
        first = _without(step) if decided else step
        made = list(self._made(first))
        within = made[: 1 + self.retries]
        badly = self._badly(within[-1]) if within else ""
        if decided or not todays:
            chosen = step
        elif self.retries and len(within) <= self.retries and (badly or not within):
            self.open.add(first.id)
            if within:
                self._add(len(within) + 1, _try(first, len(within) + 1, badly))
            chosen = first
        else:
            chosen = self._best(within, first)
        for number, one in enumerate(made, 1):
            if one.step.id != chosen.id:
                self._add(number, one.step)
        return chosen

    def _made(self, first: Step) -> Iterator[_Try]:
        for number in count(1):
            one = _try(first, number)
            manifest = self.history.store.manifest(one.id) if self.history.there(one) else None
            if manifest is None:
                return
            yield _Try(one, manifest.facts)

    def _badly(self, one: _Try) -> str:
        return ended_badly(one.facts)

    def _best(self, made: Iterable[_Try], first: Step) -> Step:
        """By dev loss alone; the first of equals. Without a try there is nothing to choose."""
        tried = list(made)
        if not tried:
            return first
        best = min(tried, key=lambda one: (NO_NUMBER in one.facts, dev_loss(one.facts)))
        if NO_NUMBER in best.facts:
            raise InputError(
                f"every try ended without an adapter: {best.facts[NO_NUMBER]}",
                where=first.name,
                remedy="lower training.learning_rate, or allow more training.retries",
            )
        return replace(best.step, address=first.address)

    def _add(self, number: int, step: Step) -> None:
        self._others[step.id] = step.at(system=try_of(number))


def number_of(step: Step) -> int:
    """Which try at a training a step is, from 1."""
    label = step.inputs.get(TRY)
    return next((n for n in range(2, MOST_RETRIES + 2) if digest(n) == label), 1)


def may_fail(step: Step, retries: int, store: Store) -> bool:
    """Whether a try may end without an adapter: another one follows, or one before it has one."""
    first, number = _without(step), number_of(step)
    earlier = (store.manifest(_try(first, one).id) for one in range(1, number))
    return number <= retries or any(one and NO_NUMBER not in one.facts for one in earlier)


def try_of(number: int) -> System:
    """What a try is called that does not stand in the training's place."""
    return System.named(f"try {number}")


def others_of(steps: Iterable[Step]) -> dict[str, list[Step]]:
    """The other tries at a training, by the id of the one that stands in its place."""
    trained = [one for one in steps if one.kind == "train"]
    stands = {one.address: one.id for one in trained if one.system == NOBODY}
    found: dict[str, list[Step]] = {}
    for one in trained:
        if one.system != NOBODY:
            found.setdefault(stands[one.at(system=NOBODY).address], []).append(one)
    return found


def waiting(steps: Iterable[Step], undecided: Iterable[str]) -> Iterator[Step]:
    """The same steps in their order; those that need an undecided training wait."""
    blocked = set(undecided)
    for step in steps:
        if blocked.intersection(step.needs):
            blocked.add(step.id)
            yield replace(step, waits=True)
        else:
            yield step


def _try(first: Step, number: int, why: str = "") -> Step:
    """The first is the training itself."""
    if number == 1:
        return first
    return replace(
        first,
        inputs={**first.inputs, TRY: digest(number)},
        why=f"tried again with another seed: {why}" if why else "",
    )


def _without(step: Step) -> Step:
    inputs = {label: one for label, one in step.inputs.items() if label != TRY}
    return replace(step, inputs=inputs)
