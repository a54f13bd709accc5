"""The figures of a report that say what was spent; the others are in `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from typing_extensions import TypedDict

from koinize.ledger.scopes import Scope
from koinize.report.blocks import Tone


class Spent(TypedDict):
    """Machine time, and what it cost."""

    machine_seconds: float
    cost: float | None
    steps: int


class Amount(Spent):
    """On the other clock, too."""

    elapsed_seconds: float


class Savings(TypedDict):
    """How many percent less, on both clocks and in money; negative where it is more."""

    elapsed: float | None
    machine: float | None
    cost: float | None


Range = Sequence[float] | None
"""The two ends of a 95 % interval; None where too little was measured."""


class SavingsInterval(TypedDict):
    """How far off savings may be by how much seconds vary here; see `variation`."""

    elapsed: Range
    machine: Range
    cost: Range


class VariationRow(TypedDict):
    """By how many percent the seconds of one kind of work varied, over so many steps that are
    comparable; None where only one of them was done.
    """

    kind: str
    steps: int
    percent: float | None


class SetupSavings(Savings):
    """`parallel`: elapsed with one machine per language."""

    parallel: float | None


class AtBest(TypedDict):
    """COMB trained by so many workers at once, as if they were that many times as fast as one, and
    how many percent less than that merging took.
    """

    workers: int
    elapsed_seconds: float
    saved: float | None


Origin = Literal["measured", "derived", "estimated"]
"""Measured: one run did this and trained nothing else of the task. Derived: put together from work
that was measured, in several runs or among other trainings. Estimated: from other work. Loading is
in each what it took on average in the whole ledger.
"""


class ScopeRow(TypedDict):
    """An update of a language against COMB retrained, both paying for the same things; see
    `ledger.scopes`. `saved_at_best`: elapsed, against COMB trained by all workers at once.
    """

    scope: Scope
    update: Amount | None
    update_is: Origin | None
    combined: Amount | None
    combined_is: Origin | None
    savings: Savings
    savings_interval: SavingsInterval
    saved_at_best: float | None


class UpdateRow(TypedDict):
    """One language trained again, in every scope."""

    language: str
    scopes: Sequence[ScopeRow]


class BreakEven(TypedDict):
    """See `break_even.break_even`."""

    extra: float
    saved: float
    updates: int | None
    until: int | None


class BreakEvens(TypedDict):
    """On both clocks and in money."""

    elapsed: BreakEven | None
    machine: BreakEven | None
    cost: BreakEven | None


class BreakEvenRows(TypedDict):
    """Of training and merging alone, and with choosing and testing; loading included."""

    training: BreakEvens
    choosing: BreakEvens


class SetUpCosts(TypedDict):
    """Set-up of a task, merged against combined."""

    trunk: bool
    combined: Amount | None
    combined_is: Literal["measured", "estimated"] | None
    combined_by_all_workers: AtBest | None
    combined_on_as_many_machines: AtBest | None
    trainings: Amount | None
    merges: Amount | None
    merge_seconds: Mapping[str, float | None]
    merged: Amount | None
    choosing: Amount | None
    with_choosing: Amount | None
    testing: Amount | None
    parallel_seconds: float | None
    savings: SetupSavings
    savings_with_choosing: Savings


class TaskCosts(SetUpCosts):
    """Set-up and update."""

    updates: Sequence[UpdateRow]
    break_even: BreakEvenRows
    variation: Sequence[VariationRow]


class SpentRow(Spent):
    """One bar of where the time went, of this colour; without a task it is beside the tasks."""

    task: str
    label: str
    kind: Tone


class AroundRow(Amount):
    """What no finished step took."""

    label: str


class Energy(TypedDict):
    """What the meters read, and in how much of the machine time."""

    joules: float
    sources: Sequence[str]
    machine_time_percent: float


class StepCounts(TypedDict):
    """The steps of a run by how they ended."""

    done: int
    failed: int
    interrupted: int
    open: int


class Run(TypedDict):
    """One run of `koinize run`."""

    run: str
    started: str
    device: str
    elapsed_seconds: float
    machine_seconds: float
    idle_seconds: float
    failed_seconds: float
    interrupted_seconds: float
    idle_cost: float | None
    cost: float | None
    steps: StepCounts


class Stretch(TypedDict):
    """One step in the lane of the worker that did it, under what fits into its bar."""

    lane: int
    step: str
    kind: str
    name: str
    tone: Tone
    status: str
    start_seconds: float
    seconds: float
    share: float
    tokens: int
    error: str


class Timeline(TypedDict):
    """Which worker did what, and when, in one run."""

    run: str
    started: str
    elapsed_seconds: float
    lanes: int
    bars: Sequence[Stretch]


class Costs(TypedDict):
    """Where the machine time of the whole project went."""

    breakdown: Sequence[SpentRow]
    around: Sequence[AroundRow]
    energy: Energy | None
    runs: Sequence[Run]
    timeline: Timeline | None
