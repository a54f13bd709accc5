"""The ledger's intervals -> what was spent, on both clocks, and what that saves.

Elapsed is the time during which at least one of the steps ran, machine time the sum of seconds
times the share of the machine, cost that sum at the price recorded with it. A figure that lacks any
of its parts is None: a saving is never computed from what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from koinize.ledger import GATE, IDLE, LOAD, PROVISION, Interval, total
from koinize.report._input import ReportInput, TaskInput

Amount = dict[str, float | int | None]


@dataclass(frozen=True)
class Accounts:
    """A project's ledger, sorted into what the present results stand on and what they do not."""

    source: ReportInput

    @cached_property
    def standing(self) -> dict[str, Interval]:
        """Step name -> the last finished work on it that the present results stand on.

        Work belongs to whatever has its artifact now: a merge may have been made to answer
        `whatif` before it became a candidate.
        """
        current = self.source.current
        around = (GATE, IDLE, LOAD, PROVISION)
        done = [
            one for one in self.source.intervals if one.status == "done" and one.kind not in around
        ]
        if not isinstance(current, Mapping):
            return {one.step: one for one in done if one.step in current}
        names = {artifact: name for name, artifact in reversed(list(current.items()))}
        return {names[one.artifact]: one for one in done if one.artifact in names}

    @cached_property
    def prices(self) -> list[dict[str, str]]:
        """The distinct prices that costs are computed with, in order of appearance."""
        used = [self._price(interval) for interval in self.source.intervals]
        distinct = {tuple(sorted(price.items())): dict(price) for price in used if price}
        return list(distinct.values())

    @cached_property
    def currency(self) -> str | None:
        """The one currency of all prices; None without a price, or with several currencies."""
        names = {price.get("currency", "") for price in self.prices}
        return names.pop() if len(names) == 1 else None

    def _price(self, interval: Interval) -> Mapping[str, str]:
        """The recorded price; for work done before the project had one, the project's own."""
        return interval.price or self.source.price or {}

    def amount(self, intervals: Iterable[Interval | None]) -> Amount | None:
        """What these took; None when there are none or one of them is missing."""
        chosen = list(intervals)
        present = [interval for interval in chosen if interval is not None]
        if not chosen or len(present) < len(chosen):
            return None
        return {
            "elapsed_seconds": covered(present),
            "machine_seconds": float(total(present)[0]),
            "cost": self._cost(present),
            "steps": len(present),
        }

    def _cost(self, intervals: Sequence[Interval]) -> float | None:
        if self.currency is None or not all(self._price(one) for one in intervals):
            return None
        hours = (
            one.machine_seconds * Decimal(self._price(one)["per_hour"]) / 3600 for one in intervals
        )
        return float(sum(hours, Decimal(0)))

    def cost_of_seconds(self, seconds: float, like: Interval) -> float | None:
        """Seconds of the whole machine at the price of another interval."""
        price = self._price(like)
        if self.currency is None or not price:
            return None
        return seconds * float(price["per_hour"]) / 3600

    def find(self, *names: str) -> list[Interval | None]:
        """The standing work of these steps, None for each that has none."""
        return [self.standing.get(name) for name in names]

    def under(self, prefix: str) -> list[Interval]:
        """All standing work on steps whose name begins so."""
        return [one for name, one in self.standing.items() if name.startswith(prefix)]


def covered(intervals: Iterable[Interval]) -> float:
    """Seconds during which at least one of these ran."""
    seconds, until = 0.0, float("-inf")
    for interval in sorted(intervals, key=lambda one: one.started):
        start = interval.started.timestamp()
        end = start + float(interval.seconds)
        seconds += max(0.0, end - max(start, until))
        until = max(until, end)
    return round(seconds, 3)


def saved(new: float | None, old: float | None) -> float | None:
    """How many percent less the new figure is; negative when it is more."""
    return None if new is None or not old else 100.0 * (1.0 - new / old)


def savings(new: Amount | None, old: Amount | None) -> dict[str, float | None]:
    """`saved` on both clocks and in money."""
    fields = {"elapsed": "elapsed_seconds", "machine": "machine_seconds", "cost": "cost"}
    return {
        name: saved(new[field], old[field]) if new and old else None
        for name, field in fields.items()
    }


def task_costs(task: TaskInput, accounts: Accounts) -> dict[str, Any]:
    """Set-up and update of one task, merged against combined."""
    trainings = [_training(one) for one in accounts.find(*_training_names(task))]
    merges = accounts.find(*merge_names(task))
    combined = accounts.amount(map(_training, accounts.find(f"train/{task.name}/comb")))
    merged = accounts.amount([*trainings, *merges]) if merges else None
    with_choosing = accounts.amount([*trainings, *merges, *choosing(task, accounts)])
    parallel = _parallel(trainings, merges)
    return {
        "combined": combined,
        "trainings": accounts.amount(trainings),
        "merges": accounts.amount(merges),
        "merge_seconds": {
            name: float(one.seconds) if one else None
            for name, one in zip(_candidates(task), merges, strict=True)
        },
        "merged": merged,
        "choosing": accounts.amount(choosing(task, accounts)),
        "with_choosing": with_choosing,
        "testing": accounts.amount(testing(task, accounts)),
        "parallel_seconds": parallel,
        "savings": {
            **savings(merged, combined),
            "parallel": saved(parallel, combined["elapsed_seconds"]) if combined else None,
        },
        "savings_with_choosing": savings(with_choosing, combined),
        "updates": [
            _update(language, training, merges, accounts, combined)
            for language, training in zip(task.languages, trainings, strict=True)
        ],
    }


def _update(
    language: str,
    training: Interval | None,
    merges: Sequence[Interval | None],
    accounts: Accounts,
    combined: Amount | None,
) -> dict[str, Any]:
    """One language trained again and every merge made again, against COMB trained again."""
    amount = accounts.amount([training, *merges]) if merges else None
    if amount and training:  # a merge waits for its training, whatever this ledger's order was
        merging = covered(one for one in merges if one)
        amount["elapsed_seconds"] = float(training.seconds) + merging
    return {"language": language, "amount": amount, "savings": savings(amount, combined)}


def _parallel(
    trainings: Sequence[Interval | None], merges: Sequence[Interval | None]
) -> float | None:
    """Wall seconds with a machine per language: the longest training, then merge after merge."""
    needed = [*trainings, *merges]
    if not merges or any(one is None for one in needed):
        return None
    longest = max(one.seconds for one in trainings if one)
    return float(longest + sum(one.seconds for one in merges if one))


def _training(interval: Interval | None) -> Interval | None:
    """An adapter that was trained elsewhere has an interval of kind import: its cost is unknown."""
    return interval if interval is not None and interval.kind == "train" else None


def _training_names(task: TaskInput) -> list[str]:
    return [f"train/{task.name}/{language}" for language in task.languages]


def _candidates(task: TaskInput) -> list[str]:
    return [one.name for one in task.systems if one.kind == "candidate" and not one.same_as]


def merge_names(task: TaskInput) -> list[str]:
    return [f"merge/{task.name}/{name}" for name in _candidates(task)]


def choosing(task: TaskInput, accounts: Accounts) -> list[Interval | None]:
    """What choosing took: every candidate's scores on dev, and the choice itself."""
    names = [
        f"evaluate/{task.name}/{candidate}/{language}/dev"
        for candidate in _candidates(task)
        for language in task.languages
    ]
    return accounts.find(*names, f"select/{task.name}")


def testing(task: TaskInput, accounts: Accounts) -> list[Interval]:
    """The scores of every system on test."""
    work = accounts.under(f"evaluate/{task.name}/")
    return [one for one in work if one.step.endswith("/test")]
