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
from koinize.report.cost_figures import Costs, TaskCosts

SystemKind = Literal["base", "individual", "single", "combined", "mean", "candidate", "cross"]
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
    `gate.Verdict`. `by_seed` is empty where one seed was trained.
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
    by_seed: Sequence[float]


class VerdictRow(PooledRow):
    """The same in one language."""

    language: str


class PowerRow(TypedDict):
    """The smallest margin that a language's n test rows can show, were all answers equal."""

    language: str
    n: int
    smallest_margin: float


class Power(TypedDict):
    """What equal answers would show by the first metric; `fewest_rows` for its margin."""

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


class FormerMargin(TypedDict):
    """A margin that is another one now, and the chosen merge's verdicts against the reference by
    it: in the mean over languages, and in every language. None where nothing was compared.
    """

    metric: str
    margin: float
    now: float
    mean: Outcome | None
    joint: str | None


class Margins(TypedDict):
    """The margins as they were first recorded; see `ledger.Stated`. `later` are the metrics of
    today of which nobody recorded one then.
    """

    utc: str
    beforehand: bool
    changed: Sequence[FormerMargin]
    later: Sequence[str]


class Answers(TypedDict):
    """What a system answered on test where labels are fixed: `counts[i][j]` rows of the label i, in
    the order of the task's labels, were answered with the label j.
    """

    system: str
    language: str
    counts: Sequence[Sequence[int]]


class Collapse(TypedDict):
    """A system that answered one label in `times` of n test rows, `right` of which have it; see
    `report.collapsed`.
    """

    system: str
    language: str
    label: str
    times: int
    right: int
    n: int
    p_value: float


class CalibrationBin(TypedDict):
    """The n answers whose probability lies in one tenth: its mean and the share that is right, in
    points; in 95 % of draws from a calibrated model the share lies from `calibrated_low` to
    `calibrated_high`.
    """

    n: int
    confidence: float
    accuracy: float
    calibrated_low: float
    calibrated_high: float


class Calibration(Interval):
    """Whether a system's answers on test are right as often as their probabilities say, in points;
    language None is all rows of all languages. See `report.calibration`.
    """

    system: str
    language: str | None
    confidence: float
    accuracy: float
    error: float
    corrected: float
    calibrated: float
    calibrated_high: float
    bins: Sequence[CalibrationBin]


class Inference(TypedDict):
    """What answering all test rows took a system, in seconds of a worker; `tokens` are those that
    it wrote, None where options are scored. `shared`: some of it is a part of a time that several
    systems took together.
    """

    system: str
    rows: int
    tokens: int | None
    seconds: float
    shared: bool


class TaskQuality(TypedDict):
    """What is said of a task's systems."""

    scores: Sequence[ScoreRow]
    selection: Sequence[CandidateRow]
    against_mean: PooledRow | None
    verdicts: Sequence[VerdictRow]
    pooled: Sequence[PooledRow]
    joint: Sequence[JointRow]
    power: Power | None
    stated: Margins | None
    answers: Sequence[Answers]
    collapsed: Sequence[Collapse]
    calibration: Sequence[Calibration]
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
    halved: int
    chosen: str | None
    systems: Sequence[SystemRow]
    inference: Sequence[Inference]
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
