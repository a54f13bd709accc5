"""The figures of a report, typed: what `results` computes, sections read and `--json` prints.

Plain values throughout, so that all three are one thing; docs/report.md says what they mean. Scores
and differences are in points, times in seconds, shares of savings in percent. None is what is not
known: never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

from koinize.gate import Outcome
from koinize.report.blocks import Tone

SystemKind = Literal["base", "individual", "combined", "mean", "candidate", "cross"]
Matrix = Sequence[Sequence[float]]


class Interval(TypedDict):
    """The ends of a 95 % interval, and the rows behind it."""

    low: float
    high: float
    n: int


class Estimate(Interval):
    """A score."""

    value: float


class Difference(Interval):
    """What a score is more than another, paired row by row."""

    difference: float


class ScoreRow(Estimate):
    """One system's score; language None is the mean over all."""

    split: str
    metric: str
    system: str
    language: str | None
    signature: str


class PooledRow(Difference):
    """The gate's verdict on one system against another in the mean over languages; see
    `gate.Verdict`.
    """

    system: str
    reference: str
    metric: str
    verdict: Outcome
    margin: float
    p_value: float
    p_better: float
    p_worse: float | None
    rows_needed: int | None
    signature: str
    level: float
    error: float


class VerdictRow(PooledRow):
    """The same in one language."""

    language: str


class PowerRow(TypedDict):
    """The smallest margin that a language's n test rows can show, were all answers equal."""

    language: str
    n: int
    smallest_margin: float


class Power(TypedDict):
    """What the test rows can show at all by the first metric; `fewest_rows` for its margin."""

    metric: str
    margin: float
    fewest_rows: int
    languages: Sequence[PowerRow]


class JointRow(TypedDict):
    """The verdict over all languages together; `better` are those that survive Holm."""

    system: str
    reference: str
    metric: str
    verdict: Literal["not worse", "worse", "inconclusive"]
    p_value: float
    worse: Sequence[str]
    inconclusive: Sequence[str]
    better: Sequence[str]


class SystemRow(TypedDict):
    """Something that was scored; see `input.System`."""

    name: str
    kind: SystemKind
    settings: Mapping[str, Any]
    chosen: bool
    same_as: str | None
    rank: int | None
    truncation_error: float | None


class CandidateRow(SystemRow):
    """A candidate with its scores on dev, by the metric that selects.

    `best_in` is the share of resamples of the dev rows, from 0 to 1, in which it is the best; None
    where candidates were not all scored, and of what is the same as another one.
    """

    best_in: float | None
    mean: Estimate | None
    languages: Mapping[str, Estimate | None]


class SignatureRow(TypedDict):
    """Under which prompt, decoding and data these systems were scored."""

    split: str
    language: str
    signature: str
    systems: Sequence[str]


class Inspection(TypedDict):
    """How a task's adapters interfere; see `engine.inspect`."""

    languages: Sequence[str]
    base_model: str
    parameters: Sequence[int]
    modules: Sequence[int]
    norms: Sequence[float]
    cosine: Matrix
    column_overlap: Matrix
    row_overlap: Matrix
    column_angle: Matrix
    row_angle: Matrix
    sign_conflict: Matrix
    ranks: Matrix
    energy_ranks: Sequence[int]
    energy: Matrix


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


class UpdateRow(TypedDict):
    """One language trained again, and every merge made again. `saved_at_best`: elapsed, against
    COMB trained by all workers at once.
    """

    language: str
    amount: Amount | None
    savings: Savings
    saved_at_best: float | None


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
    """With and without choosing on dev."""

    merged: BreakEvens
    with_choosing: BreakEvens


class TaskCosts(TypedDict):
    """Set-up and update of a task, merged against combined."""

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
    updates: Sequence[UpdateRow]
    break_even: BreakEvenRows


class TaskQuality(TypedDict):
    """What is said of a task's systems."""

    scores: Sequence[ScoreRow]
    selection: Sequence[CandidateRow]
    against_mean: PooledRow | None
    verdicts: Sequence[VerdictRow]
    pooled: Sequence[PooledRow]
    joint: Sequence[JointRow]
    power: Power | None
    signatures: Sequence[SignatureRow]


class Task(TaskQuality):
    """One task: its systems, how good they are, and what they cost."""

    name: str
    kind: str
    metrics: Sequence[str]
    labels: Sequence[str]
    languages: Sequence[str]
    margins: Mapping[str, float]
    reference: str
    changed_since: Sequence[str]
    chosen: str | None
    systems: Sequence[SystemRow]
    interference: Inspection | None
    costs: TaskCosts


class ReleaseRow(TypedDict):
    """One release."""

    version: int
    channels: Sequence[str]
    created: str


class ReleaseScore(Estimate):
    """A release's score in one language; `drift` is that from the first one that served it."""

    language: str
    version: int
    signature: str
    drift: Difference | None


class Drift(TypedDict):
    """A task's releases on its first metric."""

    task: str
    metric: str
    releases: Sequence[ReleaseRow]
    scores: Sequence[ReleaseScore]


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


class Results(TypedDict):
    """Everything that a report says."""

    format: int
    project: str
    created: str
    version: str
    spec: Mapping[str, Any]
    prices: Sequence[Mapping[str, str]]
    currency: str | None
    tasks: Sequence[Task]
    releases: Sequence[Drift]
    costs: Costs
    notes: Sequence[str]
