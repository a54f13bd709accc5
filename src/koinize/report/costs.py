"""The ledger's intervals -> what was spent, on both clocks, and what that saves.

Elapsed is the time during which at least one of the steps ran, machine time the sum of seconds
times the share of the machine, cost that sum at the price recorded with it; all of it in decimals.
A figure that lacks any of its parts is None: a saving is never computed from what is missing. The
one exception is COMB, which is estimated where it was not trained, and marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

from koinize.ledger import GATE, IDLE, LOAD, PROVISION, Address, Interval, covered, total
from koinize.ledger.address import BRANCH, REFERENCES, SEARCH, TRUNK
from koinize.report.cost_figures import Amount, AtBest, Savings, SetUpCosts
from koinize.report.input import ReportInput, TaskInput


@dataclass(frozen=True, slots=True)
class Taken:
    """What some work took: seconds on both clocks, its cost, and its steps, tries among them."""

    elapsed: Decimal
    machine: Decimal
    cost: Decimal | None
    steps: int

    def plus(self, other: Taken) -> Taken:
        """Both, one after the other."""
        known = self.cost is not None and other.cost is not None
        return Taken(
            self.elapsed + other.elapsed,
            self.machine + other.machine,
            (self.cost or Decimal(0)) + (other.cost or Decimal(0)) if known else None,
            self.steps + other.steps,
        )

    def figures(self) -> Amount:
        """The same as plain numbers."""
        return {
            "elapsed_seconds": float(self.elapsed),
            "machine_seconds": float(self.machine),
            "cost": number(self.cost),
            "steps": self.steps,
        }


@dataclass(frozen=True)
class Accounts:
    """A project's ledger, sorted into what the present results stand on and what they do not."""

    source: ReportInput

    @cached_property
    def standing(self) -> dict[Address, Interval]:
        """Step -> the last finished work on it that the present results stand on.

        Work belongs to whatever has its artifact now: a merge may have been made to answer
        `whatif` before it became a candidate, and a trunk may be COMB as well.
        """
        around = (GATE, IDLE, LOAD, PROVISION)
        done = [
            one for one in self.source.intervals if one.status == "done" and one.kind not in around
        ]
        last = {one.artifact: one for one in done}
        return {
            step: last[artifact]
            for step, artifact in self.source.current.items()
            if artifact in last
        }

    @cached_property
    def attempts(self) -> dict[str, list[Interval]]:
        """Interval of finished work -> the attempts, ended, that it went on from, and of a training
        that was tried with several seeds, all other tries.
        """
        found: dict[str, list[Interval]] = {}
        begun: dict[tuple[str, str], list[Interval]] = {}
        for one in self.source.intervals:
            if one.lost is not None:
                begun.setdefault((one.kind, one.artifact), []).append(one)
            elif one.status == "done" and (earlier := begun.pop((one.kind, one.artifact), None)):
                found[one.id] = earlier
        return found | self._tries(found)

    def _tries(self, ended: Mapping[str, list[Interval]]) -> dict[str, list[Interval]]:
        trained = (one for one in self.source.intervals if one.kind == "train")
        done = {one.artifact: one for one in trained if one.status == "done"}
        found = {}
        for stands, others in self.source.tries.items():
            if stands in done:
                tried = [*(done[one] for one in others if one in done), done[stands]]
                whole = [part for one in tried for part in (*ended.get(one.id, ()), one)]
                found[done[stands].id] = whole[:-1]
        return found

    def whole(self, interval: Interval) -> list[Interval]:
        """All attempts at what this one finished."""
        return [*self.attempts.get(interval.id, ()), interval]

    def seconds(self, interval: Interval) -> Decimal:
        """Wall seconds of all attempts together."""
        return sum((one.seconds for one in self.whole(interval)), Decimal(0))

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

    @property
    def price_changed(self) -> bool:
        """Whether a machine had one price and later another."""
        found: dict[str, set[tuple[tuple[str, str], ...]]] = {}
        for one in self.source.intervals:
            if price := self._price(one):
                found.setdefault(one.device, set()).add(tuple(sorted(price.items())))
        return any(len(prices) > 1 for prices in found.values())

    def _price(self, interval: Interval) -> Mapping[str, str]:
        """The recorded price; for work done before the project had one, the project's own."""
        return interval.price or self.source.price or {}

    def taken(self, intervals: Iterable[Interval | None]) -> Taken | None:
        """What these took, with the attempts that they went on from; None when there are none or
        one of them is missing.
        """
        chosen = list(intervals)
        if not chosen or None in chosen:
            return None
        whole = [one for interval in chosen if interval for one in self.whole(interval)]
        done = sum(one.status == "done" for one in whole)
        return Taken(covered(whole), total(whole)[0], self._cost(whole), done)

    def amount(self, intervals: Iterable[Interval | None]) -> Amount | None:
        """The same as plain numbers."""
        return figures(self.taken(intervals))

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
        """All standing work on a task's steps of these kinds, with the seed that is released."""
        return {
            step: one
            for step, one in self.standing.items()
            if step.task == task and step.kind in kinds and not step.seed
        }

    def repeated(self, task: str) -> list[Interval]:
        """The standing work on a task with further seeds."""
        work = (one for step, one in self.standing.items() if step.task == task and step.seed)
        return list({one.id: one for one in work}.values())


def number(value: Decimal | None) -> float | None:
    """A sum is a decimal; JSON and those who draw have plain numbers."""
    return None if value is None else float(value)


def figures(taken: Taken | None) -> Amount | None:
    """What some work took as plain numbers, if it is known."""
    return taken.figures() if taken else None


def saved(new: Decimal | None, old: Decimal | None) -> float | None:
    """How many percent less the new figure is; negative when it is more."""
    return None if new is None or not old else float(100 * (1 - new / old))


def savings(new: Taken | None, old: Taken | None) -> Savings:
    """`saved` on both clocks and in money."""
    if new is None or old is None:
        return {"elapsed": None, "machine": None, "cost": None}
    return {
        "elapsed": saved(new.elapsed, old.elapsed),
        "machine": saved(new.machine, old.machine),
        "cost": saved(new.cost, old.cost),
    }


def set_up_costs(task: TaskInput, accounts: Accounts) -> SetUpCosts:
    """Set-up of one task, merged against combined."""
    setup = setting_up(task, accounts)
    merges = merging(task, accounts)
    choice = choosing(task, accounts)
    measured = accounts.taken([in_training(accounts, combined_training(task))])
    combined = measured or _estimated(task, setup, accounts)
    made = merged_at_set_up(task, accounts)
    merged = accounts.taken(made)
    with_choosing = accounts.taken([*made, *choice])
    parallel = _parallel(task, accounts)
    machines = 1 if is_released_as_it_is(task) else len(task.languages)
    workers = workers_of([*accounts.find(combined_training(task)), *setup])
    together = _at_best(workers, combined, merged.elapsed if merged else None)
    return {
        "trunk": task.branches is not None,
        "combined": figures(combined),
        "combined_is": "measured" if measured else "estimated" if combined else None,
        "combined_by_all_workers": together,
        "combined_on_as_many_machines": _at_best(machines, combined, parallel),
        "trainings": accounts.amount(setup),
        "merges": accounts.amount(merges),
        "merge_seconds": _merge_seconds(task, accounts),
        "merged": figures(merged),
        "choosing": accounts.amount(choice),
        "with_choosing": figures(with_choosing),
        "testing": accounts.amount(testing(task, accounts)),
        "parallel_seconds": number(parallel),
        "savings": {
            **savings(merged, combined),
            "parallel": saved(parallel, combined.elapsed) if combined else None,
        },
        "savings_with_choosing": savings(with_choosing, combined),
    }


def setting_up(task: TaskInput, accounts: Accounts) -> list[Interval | None]:
    """What had to be trained before there was anything to release: a trunk on all rows; one on
    some of them, and a branch of every language; or every language.
    """
    if task.branches is not None:
        branches = [] if task.joint else [branch(task, one) for one in task.languages]
        return [_training(one) for one in accounts.find(trunk(task), *branches)]
    # What a continued adapter took is its last update alone: that is no set-up.
    continued = accounts.source.continued
    steps = [training(task, language) for language in task.languages]
    return [
        None if step in continued else _training(one)
        for step, one in zip(steps, accounts.find(*steps), strict=True)
    ]


def is_released_as_it_is(task: TaskInput) -> bool:
    """Whether the set-up is a trunk on all rows, which needs no merge."""
    return task.branches is not None and task.joint


def merged_at_set_up(task: TaskInput, accounts: Accounts) -> list[Interval | None]:
    """The trainings of the set-up, and every merge that it needs; None where there is no merge."""
    if is_released_as_it_is(task):
        return setting_up(task, accounts)
    return [*setting_up(task, accounts), *(merging(task, accounts) or [None])]


def _estimated(
    task: TaskInput, trainings: Sequence[Interval | None], accounts: Accounts
) -> Taken | None:
    """COMB where nobody trained it: the same rows pass the model, one language after the other.

    Unknown beside a trunk on some of the rows, which says little of a training on all of them.
    """
    if task.branches is not None and not task.joint:
        return None
    taken = accounts.taken(trainings)
    elapsed = sum((accounts.seconds(one) for one in trainings if one), Decimal(0))
    return replace(taken, elapsed=elapsed) if taken else None


def _parallel(task: TaskInput, accounts: Accounts) -> Decimal | None:
    """Wall seconds with a machine per language: a trunk, the longest training, the merges."""
    made = merged_at_set_up(task, accounts)
    if any(one is None for one in made):
        return None
    trained = [accounts.seconds(one) for one in setting_up(task, accounts) if one]
    first = trained.pop(0) if task.branches is not None else Decimal(0)
    merges = [] if is_released_as_it_is(task) else merging(task, accounts)
    return first + max(trained, default=Decimal(0)) + sum(one.seconds for one in merges if one)


def workers_of(work: Sequence[Interval | None]) -> int:
    """How many of those that did this work the machine was divided among."""
    shares = [one.share for one in work if one and one.share]
    return round(1 / min(shares)) if shares else 1


def _at_best(workers: int, combined: Taken | None, merged: Decimal | None) -> AtBest | None:
    """COMB trained by so many at once: as if they were that many times as fast."""
    if combined is None:
        return None
    seconds = combined.elapsed / workers
    return {
        "workers": workers,
        "elapsed_seconds": float(seconds),
        "saved": saved(merged, seconds),
    }


def _training(interval: Interval | None) -> Interval | None:
    """An adapter that was trained elsewhere has an interval of kind import: its cost is unknown."""
    return interval if interval is not None and interval.kind == "train" else None


def in_training(accounts: Accounts, step: Address) -> Interval | None:
    """The standing work on a training; None where it has none, or was done elsewhere."""
    return _training(accounts.standing.get(step))


def training(task: TaskInput, language: str) -> Address:
    """The step that trains one language's adapter."""
    return Address("train", task.name, language=language)


def trunk(task: TaskInput) -> Address:
    """The step that trains what every language starts from."""
    return Address("train", task.name, role=TRUNK)


def branch(task: TaskInput, language: str) -> Address:
    """The step that trains a language on from the trunk."""
    return Address("train", task.name, language=language, role=BRANCH)


def combined_training(task: TaskInput) -> Address:
    """The step that trains COMB."""
    return Address("train", task.name, role="comb")


def _candidates(task: TaskInput) -> list[str]:
    return [one.name for one in task.systems if one.kind == "candidate" and not one.same_as]


def merging_candidates(task: TaskInput) -> list[str]:
    """The candidates that are merges; a trunk that nothing left is none."""
    return [one for one in _candidates(task) if one != "TRUNK"]


def merging(task: TaskInput, accounts: Accounts) -> list[Interval | None]:
    """What making the candidates took, in their order."""
    merges = accounts.of(task.name, "merge").items()
    found = {step.system.title: one for step, one in merges if not step.role}
    return [found.get(one) for one in merging_candidates(task)]


def _merge_seconds(task: TaskInput, accounts: Accounts) -> dict[str, float | None]:
    """What each merge took that stands in the report by itself: candidates and baselines."""
    made = {one.name: one.made for one in task.systems if one.made and not one.same_as}
    found = {name: accounts.standing.get(step) for name, step in made.items()}
    return {name: number(one.seconds) if one else None for name, one in found.items()}


def choosing(task: TaskInput, accounts: Accounts) -> list[Interval | None]:
    """What choosing took: searching, every candidate's scores on dev, and the choice itself."""
    found = {
        (step.system.title, step.language): one
        for step, one in accounts.of(task.name, "evaluate").items()
        if step.split == "dev" and not step.role
    }
    candidates = _candidates(task)
    scores = [
        found.get((candidate, language)) for candidate in candidates for language in task.languages
    ]
    if len(candidates) == 1:  # one alone is chosen unseen
        scores = [one for one in scores if one]
    judged = [
        one
        for step, one in accounts.of(task.name, "judge").items()
        if step.split == "dev" and not step.role and step.system.title in candidates
    ]
    once = {one.id: one for one in [*_searching(task, accounts), *scores, *judged] if one}
    missing = [None for one in scores if one is None]
    return [*missing, *once.values(), *accounts.find(Address("select", task.name))]


def _searching(task: TaskInput, accounts: Accounts) -> list[Interval]:
    """What a search looked at besides the candidates: merges, scores on dev, decisions."""
    made = {id(one) for one in merging(task, accounts)}
    work = accounts.of(task.name, "merge", "evaluate", "judge", SEARCH).items()
    looked = [one for step, one in work if (step.role or step.kind) == SEARCH]
    return [one for one in looked if id(one) not in made]


def testing(task: TaskInput, accounts: Accounts) -> list[Interval]:
    """The scores of every system on test, and what judges are set on for that."""
    work, of_test = accounts.of(task.name, "evaluate", "judge"), {"test", REFERENCES}
    once = {one.id: one for step, one in work.items() if {step.split, step.role} & of_test}
    return list(once.values())
