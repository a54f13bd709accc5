"""The ledger's intervals -> what was spent, on both clocks, and what that saves.

Elapsed is the time during which at least one of the steps ran, machine time the sum of seconds
times the share of the machine, cost that sum at the price recorded with it; all of it in decimals.
A figure that lacks any of its parts is None: a saving is never computed from what is missing. The
one exception is COMB, which is estimated where it was not trained, and marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from koinize.ledger import GATE, IDLE, LOAD, PROVISION, Address, Interval, covered, total
from koinize.report.break_even import break_even
from koinize.report.input import ReportInput, TaskInput

Amount = dict[str, Decimal | int | None]

CLOCKS = {"elapsed": "elapsed_seconds", "machine": "machine_seconds", "cost": "cost"}
"""The two clocks and money, and where an amount has them."""


@dataclass(frozen=True)
class Accounts:
    """A project's ledger, sorted into what the present results stand on and what they do not."""

    source: ReportInput

    @cached_property
    def standing(self) -> dict[Address, Interval]:
        """Step -> the last finished work on it that the present results stand on.

        Work belongs to whatever has its artifact now: a merge may have been made to answer
        `whatif` before it became a candidate.
        """
        around = (GATE, IDLE, LOAD, PROVISION)
        done = [
            one for one in self.source.intervals if one.status == "done" and one.kind not in around
        ]
        steps = {artifact: step for step, artifact in reversed(list(self.source.current.items()))}
        return {steps[one.artifact]: one for one in done if one.artifact in steps}

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
            "machine_seconds": total(present)[0],
            "cost": self._cost(present),
            "steps": len(present),
        }

    def _cost(self, intervals: Sequence[Interval]) -> Decimal | None:
        costs = [self.cost_of_seconds(one.machine_seconds, one) for one in intervals]
        known = [cost for cost in costs if cost is not None]
        return sum(known, Decimal(0)) if len(known) == len(costs) else None

    def cost_of_seconds(self, seconds: Decimal, like: Interval) -> Decimal | None:
        """Seconds of the whole machine at the price of an interval; None without one currency."""
        price = self._price(like)
        if self.currency is None or not price:
            return None
        return seconds * Decimal(price["per_hour"]) / 3600

    def find(self, *steps: Address) -> list[Interval | None]:
        """The standing work on these steps, None for each that has none."""
        return [self.standing.get(step) for step in steps]

    def of(self, task: str, *kinds: str) -> dict[Address, Interval]:
        """All standing work on a task's steps of these kinds."""
        return {
            step: one
            for step, one in self.standing.items()
            if step.task == task and step.kind in kinds
        }


def saved(new: Decimal | int | None, old: Decimal | int | None) -> Decimal | None:
    """How many percent less the new figure is; negative when it is more."""
    return None if new is None or not old else 100 * (1 - Decimal(new) / old)


def savings(new: Amount | None, old: Amount | None) -> dict[str, Decimal | None]:
    """`saved` on both clocks and in money."""
    return {
        name: saved(new[field], old[field]) if new and old else None
        for name, field in CLOCKS.items()
    }


def task_costs(task: TaskInput, accounts: Accounts) -> dict[str, Any]:
    """Set-up and update of one task, merged against combined."""
    steps = [training(task, language) for language in task.languages]
    trainings = [_training(one) for one in accounts.find(*steps)]
    # What a continued adapter took is its last update alone: that is no set-up.
    continued = accounts.source.continued
    setup = [None if step in continued else one for step, one in zip(steps, trainings, strict=True)]
    merges = merging(task, accounts)
    choice = choosing(task, accounts)
    measured = accounts.amount(map(_training, accounts.find(combined_training(task))))
    combined = measured or _estimated(setup, accounts)
    merged = accounts.amount([*setup, *merges]) if merges else None
    with_choosing = accounts.amount([*setup, *merges, *choice])
    parallel = _parallel(setup, merges)
    updates = [_update(one, merges, accounts) for one in trainings]
    chosen_updates = [_update(one, merges, accounts, choice) for one in trainings]
    return {
        "combined": combined,
        "combined_is": "measured" if measured else "estimated" if combined else None,
        "trainings": accounts.amount(setup),
        "merges": accounts.amount(merges),
        "merge_seconds": {
            name: one.seconds if one else None
            for name, one in zip(_candidates(task), merges, strict=True)
        },
        "merged": merged,
        "choosing": accounts.amount(choice),
        "with_choosing": with_choosing,
        "testing": accounts.amount(testing(task, accounts)),
        "parallel_seconds": parallel,
        "savings": {
            **savings(merged, combined),
            "parallel": saved(parallel, combined["elapsed_seconds"]) if combined else None,
        },
        "savings_with_choosing": savings(with_choosing, combined),
        "updates": [
            {"language": language, "amount": amount, "savings": savings(amount, combined)}
            for language, amount in zip(task.languages, updates, strict=True)
        ],
        "break_even": {
            "merged": _paid_back(merged, updates, combined),
            "with_choosing": _paid_back(with_choosing, chosen_updates, combined),
        },
    }


def _estimated(trainings: Sequence[Interval | None], accounts: Accounts) -> Amount | None:
    """COMB where nobody trained it: the same rows pass the model, one language after the other."""
    amount = accounts.amount(trainings)
    if amount:
        amount["elapsed_seconds"] = sum((one.seconds for one in trainings if one), Decimal(0))
    return amount


def _update(
    training: Interval | None,
    merges: Sequence[Interval | None],
    accounts: Accounts,
    choice: Sequence[Interval | None] = (),
) -> Amount | None:
    """One language trained again and every merge made again (and chosen from again)."""
    amount = accounts.amount([training, *merges, *choice]) if merges else None
    if amount and training:  # a merge waits for its training, whatever this ledger's order was
        waiting = (covered(one for one in some if one) for some in (merges, choice))
        amount["elapsed_seconds"] = training.seconds + sum(waiting, Decimal(0))
    return amount


def _paid_back(
    setup: Amount | None, updates: Sequence[Amount | None], combined: Amount | None
) -> dict[str, dict[str, Decimal | int | None] | None]:
    """After how many updates of one language merging has cost less than COMB, on each clock."""
    known = [one for one in updates if one]
    if not (setup and combined and known) or len(known) < len(updates):
        return dict.fromkeys(CLOCKS)
    return {
        name: break_even(setup[field], combined[field], _mean([one[field] for one in known]))
        for name, field in CLOCKS.items()
    }


def _mean(values: Sequence[Decimal | int | None]) -> Decimal | None:
    known = [Decimal(value) for value in values if value is not None]
    return sum(known, Decimal(0)) / len(known) if len(known) == len(values) else None


def _parallel(
    trainings: Sequence[Interval | None], merges: Sequence[Interval | None]
) -> Decimal | None:
    """Wall seconds with a machine per language: the longest training, then merge after merge."""
    needed = [*trainings, *merges]
    if not merges or any(one is None for one in needed):
        return None
    longest = max(one.seconds for one in trainings if one)
    return longest + sum(one.seconds for one in merges if one)


def _training(interval: Interval | None) -> Interval | None:
    """An adapter that was trained elsewhere has an interval of kind import: its cost is unknown."""
    return interval if interval is not None and interval.kind == "train" else None


def training(task: TaskInput, language: str) -> Address:
    """The step that trains one language's adapter."""
    return Address("train", task.name, language=language)


def combined_training(task: TaskInput) -> Address:
    """The step that trains COMB."""
    return Address("train", task.name, role="comb")


def _candidates(task: TaskInput) -> list[str]:
    return [one.name for one in task.systems if one.kind == "candidate" and not one.same_as]


def merging(task: TaskInput, accounts: Accounts) -> list[Interval | None]:
    """What making the candidates took, in their order."""
    found = {step.system.title: one for step, one in accounts.of(task.name, "merge").items()}
    return [found.get(name) for name in _candidates(task)]


def choosing(task: TaskInput, accounts: Accounts) -> list[Interval | None]:
    """What choosing took: every candidate's scores on dev, and the choice itself."""
    found = {
        (step.system.title, step.language): one
        for step, one in accounts.of(task.name, "evaluate").items()
        if step.split == "dev"
    }
    scores = [
        found.get((candidate, language))
        for candidate in _candidates(task)
        for language in task.languages
    ]
    return [*scores, *accounts.find(Address("select", task.name))]


def testing(task: TaskInput, accounts: Accounts) -> list[Interval]:
    """The scores of every system on test."""
    work = accounts.of(task.name, "evaluate")
    return [one for step, one in work.items() if step.split == "test"]
