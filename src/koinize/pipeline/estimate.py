"""How long work will take, with an interval, from what similar work took.

`docs/plan.md` has the formulas. In short: seconds are units times a rate; the rate is the seconds
of all similar work over its units; how far off that may be is shared by all steps that it predicts,
a run strays as a whole, and every step strays on its own besides.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from koinize.ledger import LOAD
from koinize.pipeline.experience import Experience, Tally
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.step import Step

NORMAL_95 = 1.96
# Relative standard deviations. A rate from another machine is as good as a first guess: within a
# factor of 10 of the truth 19 times out of 20.
GUESS = math.log(10) / NORMAL_95
# What single steps and whole runs are taken to stray by before anything is known, and how many
# steps or runs that counts for.
PRIOR_SCATTER, PRIOR_DRIFT, PRIOR_COUNT = 0.3, 0.25, 2
PATIENCE = 2.0  # times of loading that work waits for a worker that has the model


@dataclass(frozen=True)
class Estimate:
    """A quantity, and the interval that should hold it 19 times out of 20."""

    value: float
    low: float
    high: float

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Rate:
    """Seconds per unit, and three relative standard deviations.

    `scatter`: how far a single step strays. `error`: how far off the rate is, for all steps that it
    predicts. `drift`: how far one run as a whole strays from others, whatever it does: the machine
    is busier than it was, or another. `learnt` says whether a ledger stands behind the rate.
    """

    per_unit: float
    drift: float
    error: float
    scatter: float
    learnt: bool = True

    def seconds(self, units: int) -> float:
        """What so much work takes; work without units is one unit."""
        return max(1, units) * self.per_unit


Part = tuple[Rate, float]
"""Seconds, and the rate that they were predicted by."""


def rate_of(tally: Tally, *, other: float = 0.0, other_machine: bool = False) -> Rate:
    """The ratio of the sums, its standard error, and the scatter of steps and runs around it.

    `other` is the relative standard deviation that a rate of other work has besides.

    A ratio estimator (Cochran, Sampling Techniques, 1977, chapter 6) whose two scatters begin at
    what is assumed of them before anything is known.
    """
    per_unit = tally.seconds / tally.units
    scatter = _variance(tally, PRIOR_SCATTER, tally.count, tally.squared_seconds)
    drift = _variance(tally, PRIOR_DRIFT, tally.runs, tally.squared_run_seconds)
    # The runs behind the rate strayed as the next one will.
    drift *= 1 + tally.squared_run_units / tally.units**2
    error = scatter * tally.squared_units / tally.units**2
    return Rate(
        per_unit,
        drift=math.sqrt(drift + other_machine * GUESS**2),
        error=math.sqrt(error + other**2),
        scatter=math.sqrt(scatter),
    )


def _variance(tally: Tally, prior: float, count: int, squared_seconds: float) -> float:
    """Of s / (u rate) around 1, each weighted by its u: what is assumed, and what was seen."""
    if not tally.seconds:
        return prior**2
    seen = squared_seconds * tally.units / tally.seconds**2 - 1
    return (PRIOR_COUNT * prior**2 + max(0.0, count * seen)) / (PRIOR_COUNT + count - 1)


def together(parts: Iterable[Part]) -> Estimate:
    """The sum of the parts.

    Scatter averages out over steps, a rate's error only over rates, and drift not at all.
    """
    sums = _sums(parts)
    value = sum(linear for linear, _ in sums.values())
    if not value:
        return Estimate(0.0, 0.0, 0.0)
    variance = sum(rate.drift * linear for rate, (linear, _) in sums.items()) ** 2 + sum(
        (rate.error * linear) ** 2 + rate.scatter**2 * squared
        for rate, (linear, squared) in sums.items()
    )
    factor = math.exp(NORMAL_95 * math.sqrt(variance) / value)
    return Estimate(value, value / factor, value * factor)


def less(new: Iterable[Part], old: Iterable[Part]) -> Estimate | None:
    """How many percent less one sum of parts is than another; None where the other is nothing.

    What both have in common (a busy day, a rate that is off) makes both larger, and matters only
    as far as their shares of it differ.
    """
    ours, theirs = _sums(new), _sums(old)
    mine, whole = (sum(linear for linear, _ in one.values()) for one in (ours, theirs))
    if not whole:
        return None
    if not mine:
        return Estimate(100.0, 100.0, 100.0)
    drift = variance = 0.0
    for rate in {*ours, *theirs}:
        (a, squared_a), (b, squared_b) = (one.get(rate, (0.0, 0.0)) for one in (ours, theirs))
        apart = a / mine - b / whole
        drift += rate.drift * apart
        variance += (rate.error * apart) ** 2
        variance += rate.scatter**2 * (squared_a / mine**2 + squared_b / whole**2)
    ratio, factor = mine / whole, math.exp(NORMAL_95 * math.sqrt(variance + drift**2))
    return Estimate(*(100 * (1 - one) for one in (ratio, ratio * factor, ratio / factor)))


def _sums(parts: Iterable[Part]) -> dict[Rate, tuple[float, float]]:
    """By rate, the sum of its seconds and that of their squares."""
    sums: dict[Rate, tuple[float, float]] = {}
    for rate, seconds in parts:
        linear, squared = sums.get(rate, (0.0, 0.0))
        sums[rate] = linear + seconds, squared + seconds**2
    return sums


class Rates:
    """The rates that experience gives for work on one device, of which there are some."""

    def __init__(self, experience: Experience, device: str, machines: int = 1) -> None:
        self.experience, self.device, self.machines = experience, device, machines
        self.of = cache(self._of)

    def step(self, step: Step) -> Rate:
        """The rate of a step of the graph."""
        return self.of(step.kind, step.sort)

    @cached_property
    def load(self) -> Rate | None:
        """Of loading the model into a worker; None while the ledger has none apart."""
        rate = self.of(LOAD, "")
        return rate if rate.learnt else None

    def _of(self, kind: str, about: str) -> Rate:
        """The rate of this very work; else of others of its kind; else of another machine's."""
        other = KINDS[kind].other if kind in KINDS else 0.0
        if tally := self._known(kind, self.device, about):
            return rate_of(tally)
        if tally := self._known(kind, self.device):
            return rate_of(tally, other=other)
        if tally := self._known(kind, about=about):
            return rate_of(tally, other_machine=True)
        if tally := self._known(kind):
            return rate_of(tally, other=other, other_machine=True)
        guess = KINDS[kind].guess if kind in KINDS else 1.0
        return Rate(guess, drift=GUESS, error=0.0, scatter=PRIOR_SCATTER, learnt=False)

    def _known(
        self, kind: str, device: str | None = None, about: str | None = None
    ) -> Tally | None:
        """All work of a kind, on any machine and about anything unless that is named."""
        found = [
            tally
            for sort, tally in self.experience.tallies.items()
            if sort[1] == kind and device in (None, sort[0]) and about in (None, sort[2])
        ]
        return sum(found, Tally()) if found else None


@dataclass(frozen=True)
class Work:
    """One step with its predicted seconds and the rate behind them."""

    step: Step
    rate: Rate
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """`wall`: until the last step ends. `machine`: the sum of every step's share of the machine.

    `critical` and `parts` are the seconds behind them, with the rates that these come from.
    """

    wall: Estimate
    machine: Estimate
    critical: tuple[Part, ...] = ()
    parts: tuple[Part, ...] = ()


def schedule(work: Sequence[Work], workers: int, load: Rate | None, machines: int = 1) -> Schedule:
    """Each step starts as soon as its needs and a worker allow, in the order given.

    The workers are spread evenly over the machines.

    A worker loads a model before its first step that uses it, unless one that has it is free soon
    enough (`pipeline.warm`). The interval of the wall time is that of the critical path: by as much
    as its steps are late, the end is.
    """
    free: list[float] = [0.0] * workers
    latest: list[str | None] = [None] * workers  # what each worker did last
    loaded: dict[bool, set[int]] = {True: set(), False: set()}  # workers, of judges and of the base
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}  # what a step waited for
    parts: dict[str, list[Part]] = {}
    for one in work:
        if one.step.id in ends:
            continue  # the same artifact by two names, as COMB where there is one language
        need = max(one.step.needs, key=lambda name: ends.get(name, 0.0), default="")
        ready = ends.get(need, 0.0)
        having = loaded[one.step.kind == "judge"]
        loads = load if KINDS[one.step.kind].needs_model else None
        worker = _worker([max(at, ready) for at in free], having, loads)
        name = one.step.id
        before[name] = need if ready > free[worker] else latest[worker]
        parts[name] = [(one.rate, one.seconds)]
        if loads and worker not in having:
            having.add(worker)
            parts[name].append((loads, loads.per_unit))
        ends[name] = free[worker] = max(free[worker], ready) + sum(s for _, s in parts[name])
        latest[worker] = name
    critical = tuple(_critical(ends, before, parts))
    every = tuple(part for some in parts.values() for part in some)
    machine = together(every) * (machines / workers)
    return Schedule(together(critical), machine, critical, every)


def _worker(starts: Sequence[float], having: Collection[int], load: Rate | None) -> int:
    """The worker that can start first; of those that have the model, if that is worth the wait."""
    first = min(range(len(starts)), key=lambda index: (starts[index], index))
    if not load or not having:
        return first
    warm = min(having, key=lambda index: (starts[index], index))
    return warm if starts[warm] - starts[first] <= PATIENCE * load.per_unit else first


def _critical(
    ends: dict[str, float], before: dict[str, str | None], parts: dict[str, list[Part]]
) -> Iterable[Part]:
    name = max(ends, key=lambda one: ends[one], default=None)
    while name is not None:
        yield from parts[name]
        name = before[name]


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 52 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def amount(money: float) -> str:
    """An amount of money: cents from 1 up, four places below."""
    return f"{money:.2f}" if money >= 1 else f"{money:.4f}"
