"""How far the seconds of the same sort of work stray here, and so how far off a saving may be:
docs/report.md, once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import exp, log, sqrt
from statistics import stdev
from typing import Any

from scipy.stats import t as student

from tests.oracle.account import Account, busy, machine
from tests.oracle.project import Piece

Sort = tuple[str, str, str]
Parts = Mapping[str, float]
"""An interval -> what it is of a side, in seconds."""


@dataclass(frozen=True)
class Variation:
    """What one ledger shows of it."""

    account: Account

    @cached_property
    def sorts(self) -> dict[Sort, list[Piece]]:
        """All finished work, by device, kind, and task or recipe."""
        found = dict[Sort, list[Piece]]()
        for one in self.account.pieces:
            if one.status == "done" and one.kind not in ("gate", "idle", "provision"):
                found.setdefault(one.sort, []).append(one)
        return found

    @cached_property
    def deviations(self) -> dict[Sort, tuple[float, int]]:
        """How far each sort strays, and how many steps show it; of one alone nothing is known."""
        took = {sort: [one for one in some if one.seconds] for sort, some in self.sorts.items()}
        return {
            sort: (self._deviation(some), len(some)) for sort, some in took.items() if len(some) > 1
        }

    def _deviation(self, some: Sequence[Piece]) -> float:
        """Of the steps or of whole runs, whichever stray further."""
        wholes = [self.account.whole(one) for one in some]
        work = [sum(one.tokens for one in each) for each in wholes]
        if not all(work):
            work = [max(1, sum(one.units for one in each)) for each in wholes]
        seconds = [float(sum(one.seconds - (one.lost or 0) for one in each)) for each in wholes]
        each = sorted(zip([one.run for one in some], seconds, work, strict=True))
        by_run = [[one[1:] for one in run] for _, run in groupby(each, key=lambda one: one[0])]
        runs = [tuple(map(sum, zip(*run, strict=True))) for run in by_run]
        steps = [one for run in by_run for one in run]
        rates = [[log(took / much) for took, much in some] for some in (steps, runs)]
        return max(stdev(one) for one in rates if len(one) > 1)

    def rows(self, task: str) -> list[dict[str, Any]]:
        """Of every kind of a task's work, also of what it shares with others, and of loads: the
        mean square over steps, in percent.
        """
        _, *others = self.account.sharing(task)
        kinds = dict[str, set[Sort]]()
        for one in (one for some in self.sorts.values() for one in some):
            common = one.task in others and one.kind in ("merge", "select") and not one.role
            if one.kind == "load" or one.task == task or common:
                kinds.setdefault(one.kind, set()).add(one.sort)
        found = list[dict[str, Any]]()
        for kind, sorts in kinds.items():
            known = [self.deviations[one] for one in sorts if one in self.deviations]
            n = sum(steps for _, steps in known)
            percent = 100 * sqrt(sum(n * s**2 for s, n in known) / n) if known else None
            found.append({"kind": kind, "steps": n, "percent": percent})
        return found

    def side(self, stages: Iterable[Sequence[Piece]], workers: int) -> tuple[Parts, Parts]:
        """What each interval is of the elapsed and of the machine time, loads among them."""
        count = len(self.loads)
        elapsed = {one.name: float(one.seconds / count) for one in self.loads}
        used = {one.name: float(one.machine * workers / count) for one in self.loads}
        for stage in stages:
            mine = {one.name: machine(self.account.whole(one)) for one in stage}
            whole, took = sum(mine.values()), busy(self.account.wholly(stage))
            elapsed |= {one: float(took * part / whole) for one, part in mine.items() if whole}
            used |= {one: float(part) for one, part in mine.items()}
        return elapsed, used

    @cached_property
    def loads(self) -> list[Piece]:
        return [one for (_, kind, _), some in self.sorts.items() if kind == "load" for one in some]

    def less(self, ours: Parts, theirs: Parts) -> list[float] | None:
        """Between how many and how many percent less ours is, at 95 %."""
        mine, whole = sum(ours.values()), sum(theirs.values())
        if not mine or not whole:
            return None
        moved = {
            one: ours.get(one, 0) / mine - theirs.get(one, 0) / whole for one in {*ours, *theirs}
        }
        variance = freedom = unseen = 0.0
        for sort, some in self.sorts.items():
            here = [one for one in some if one.name in moved]
            deviation, steps = self.deviations.get(sort, (1.0, 0))
            part = deviation**2 * self._alike(here, moved)
            variance += part
            if steps:
                freedom += part**2 / (steps - 1)
            else:
                unseen += sum(abs(moved[one.name]) for one in here)
        if unseen > 0.1 + 1e-9:  # too much of it was done once
            return None
        t = float(student.ppf(0.975, variance**2 / freedom)) if freedom else 1.96
        ratio, factor = mine / whole, exp(t * sqrt(variance))
        return [100 * (1 - ratio * factor), 100 * (1 - ratio / factor)]

    def _alike(self, some: Sequence[Piece], moved: Parts) -> float:
        """Each by itself, or all of a run alike."""
        runs = dict[str, float]()
        for one in some:
            runs[one.run] = runs.get(one.run, 0) + moved[one.name]
        return max(sum(moved[one.name] ** 2 for one in some), sum(x**2 for x in runs.values()))
