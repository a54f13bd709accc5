"""How far the seconds of one sort of work vary here, and so how far off a measured saving may be.

A sort is what a rate is learnt apart for: a kind of step, of one task or recipe, on one device. Its
deviation is the standard deviation of ln(seconds / work) over its finished steps, or over whole
runs where these stray further (the machine was busier on one day); work is tokens where all of
them counted some, else units. One step alone shows none.

A saving is 1 - ours / theirs. A step that is the share a of our seconds and b of theirs moves
ln(ours / theirs) by a - b times what it strays. Steps of a sort are taken to stray by themselves
or, in each run, all by the same, whichever makes more; sorts by themselves. The interval is
Student's, with the degrees of freedom of Welch and Satterthwaite (Biometrics Bulletin 2, 1946).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import stdev

from koinize.ledger import GATE, IDLE, LOAD, PROVISION, Interval
from koinize.report.cost_figures import Range, VariationRow
from koinize.report.costs import Accounts

UNSEEN = 1.0
"""The deviation of a sort of which one step was done: it may be off by all of itself."""
ROUNDING = 1e-9  # of sums of shares: of short steps they are exactly the limit now and then
MOST_UNSEEN = 0.1
"""The largest share of a side that such sorts may be; beyond it there is no interval."""

Sort = tuple[str, str, str]
"""Device, kind, and the task or recipe."""
Parts = Mapping[str, float]
"""The id of an interval -> what it is of a side, in seconds."""


@dataclass(frozen=True)
class Spread:
    """The deviation of one sort of work, relative, and of how many steps."""

    sort: Sort
    deviation: float
    steps: int


def sort_of(one: Interval) -> Sort:
    """What its seconds are compared within."""
    return one.device, one.kind, one.alike


@dataclass(frozen=True)
class Variation:
    """What a ledger shows of it."""

    accounts: Accounts

    @cached_property
    def spreads(self) -> dict[Sort, Spread]:
        """Of every sort of which at least two steps were finished."""
        found: dict[Sort, list[Interval]] = {}
        for one in self._steps.values():
            if one.status == "done" and one.seconds and one.kind not in (GATE, IDLE, PROVISION):
                found.setdefault(sort_of(one), []).append(one)
        return {
            sort: Spread(sort, self._deviation(some), len(some))
            for sort, some in found.items()
            if len(some) > 1
        }

    @cached_property
    def _steps(self) -> dict[str, Interval]:
        return {one.id: one for one in self.accounts.source.intervals}

    def _deviation(self, some: Sequence[Interval]) -> float:
        whole = [self.accounts.whole(one) for one in some]
        seconds = [float(sum(one.seconds - (one.lost or 0) for one in each)) for each in whole]
        work = [sum(one.tokens for one in each) for each in whole]
        if not all(work):
            work = [max(1, sum(one.units for one in each)) for each in whole]
        runs: dict[str, list[tuple[float, int]]] = {}
        for one, took, much in zip(some, seconds, work, strict=True):
            runs.setdefault(one.run, []).append((took, much))
        rates = [s / w for s, w in zip(seconds, work, strict=True)]
        of_runs = [sum(s for s, _ in run) / sum(w for _, w in run) for run in runs.values()]
        logs = [[math.log(one) for one in some] for some in (rates, of_runs)]
        return max(stdev(one) for one in logs if len(one) > 1)

    def less(self, ours: Parts, theirs: Parts) -> Range:
        """The 95 % interval of how many percent less `ours` is; None where too much of a side is
        work of which one step was done.
        """
        from scipy.special import stdtrit

        mine, whole = sum(ours.values()), sum(theirs.values())
        if not mine or not whole:
            return None
        shares = {
            one: ours.get(one, 0.0) / mine - theirs.get(one, 0.0) / whole
            for one in {*ours, *theirs}
        }
        apart: dict[Sort, list[str]] = {}
        for one in sorted(shares):
            apart.setdefault(sort_of(self._steps[one]), []).append(one)
        variance = freedom = unseen = 0.0
        for sort, some in apart.items():
            moved, spread = self._moved(some, shares), self.spreads.get(sort)
            if spread:
                part = spread.deviation**2 * moved
                freedom += part**2 / (spread.steps - 1)
            else:
                part = UNSEEN**2 * moved
                unseen += sum(abs(shares[one]) for one in some)
            variance += part
        if unseen > MOST_UNSEEN + ROUNDING:
            return None
        t = stdtrit(variance**2 / freedom, 0.975) if freedom else 1.96
        ratio, factor = mine / whole, math.exp(t * math.sqrt(variance))
        return [100 * (1 - ratio * factor), 100 * (1 - ratio / factor)]

    def rows(self, task: str) -> list[VariationRow]:
        """Of every kind of work on a task, merges and choices for it and others among them, and of
        loading the model, how far its sorts stray in the mean over steps, in percent; null where
        no sort of it was done twice.
        """
        _, *others = self.accounts.source.sharing(task)
        done: dict[str, set[Sort]] = {}
        for one in self._steps.values():
            step = one.address
            shared = step.task in others and step.kind in ("merge", "select") and not step.role
            mine = shared or one.kind == LOAD or step.task == task
            if one.status == "done" and mine and one.kind != GATE:
                done.setdefault(one.kind, set()).add(sort_of(one))
        found: list[VariationRow] = []
        for kind, sorts in done.items():
            known = [self.spreads[one] for one in sorts if one in self.spreads]
            steps = sum(one.steps for one in known)
            squares = sum(one.steps * one.deviation**2 for one in known)
            percent = 100 * math.sqrt(squares / steps) if known else None
            found.append({"kind": kind, "steps": steps, "percent": percent})
        return found

    def _moved(self, some: Sequence[str], shares: Mapping[str, float]) -> float:
        runs: dict[str, float] = {}
        for one in some:
            run = self._steps[one].run
            runs[run] = runs.get(run, 0.0) + shares[one]
        return max(sum(shares[one] ** 2 for one in some), sum(one**2 for one in runs.values()))
