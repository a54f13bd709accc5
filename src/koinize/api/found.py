"""What a finished project found, as typed values: the figures of its report and of its ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from koinize.errors import InputError, did_you_mean
from koinize.gate import Outcome

if TYPE_CHECKING:
    from koinize.ledger.summary import RunSum, Sum
    from koinize.report.cost_figures import TaskCosts
    from koinize.report.figures import Results as Figures
    from koinize.report.figures import Task

T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """A system's score in points, with its 95 % interval, on n rows of a split.

    `language` None is the mean over all. Scores compare where their signatures are the same.
    """

    system: str
    language: str | None
    metric: str
    split: str
    value: float
    low: float
    high: float
    n: int
    signature: str

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}] n={self.n}"


@dataclass(frozen=True)
class Verdict:
    """One system against another on test, row by row: is it shown to lose no more than `margin`?

    `difference` in points, positive where `system` is better, with its 95 % interval. `language`
    None is the verdict on the mean over all. `rows_needed`: how many rows would probably decide
    what is "inconclusive".
    """

    system: str
    reference: str
    language: str | None
    metric: str
    verdict: Outcome
    difference: float
    low: float
    high: float
    n: int
    margin: float
    p_value: float
    rows_needed: int | None
    signature: str

    @property
    def passes(self) -> bool:
        """Whether it is shown to be not worse."""
        return self.verdict in ("better", "not worse")


@dataclass(frozen=True)
class TaskResults:
    """One task: its systems, their scores, and the verdicts on them.

    `chosen` is the merge that was chosen on dev; `costs` what set-up and updates took against
    training on everything, as docs/report.md says it.
    """

    name: str
    languages: tuple[str, ...]
    metrics: tuple[str, ...]
    systems: tuple[str, ...]
    chosen: str | None
    scores: tuple[Score, ...] = field(repr=False)
    verdicts: tuple[Verdict, ...] = field(repr=False)
    costs: TaskCosts = field(repr=False)

    def score(
        self,
        system: str | None = None,
        language: str | None = None,
        *,
        metric: str | None = None,
        split: str = "test",
    ) -> Score:
        """One score; by default of the chosen merge, in the mean, by the first metric.

        Raises InputError where there is none, with what there is.
        """
        found: Sequence[Score] = self.scores
        wanted = (
            ("split", split),
            ("metric", metric or self.metrics[0]),
            ("system", system or self.chosen),
            ("language", language),
        )
        for name, value in wanted:
            known = {str(getattr(one, name)) for one in found}
            found = [one for one in found if getattr(one, name) == value]
            if not found:
                raise InputError(
                    f"task '{self.name}' has no score of {name} '{value}'",
                    remedy=did_you_mean(str(value), known),
                )
        return found[0]


@dataclass(frozen=True)
class Results:
    """What a project found, task by task; `notes` are what a reader must know of them.

    `figures` has every figure of the report, as `koinize report --json` prints it.
    """

    tasks: Mapping[str, TaskResults]
    notes: tuple[str, ...]
    figures: Figures = field(repr=False)

    @property
    def task(self) -> TaskResults:
        """The only task. Raises InputError where there are several."""
        if len(self.tasks) != 1:
            listed = ", ".join(f"'{one}'" for one in self.tasks)
            raise InputError(
                f"the project has {len(self.tasks)} tasks", expected=f"one of {listed}"
            )
        return next(iter(self.tasks.values()))


@dataclass(frozen=True)
class Costs:
    """What the ledger says was spent: in all, by kind of work, and by run, the oldest first.

    Seconds of both clocks and amounts by currency are exact decimals.
    """

    total: Sum
    kinds: Mapping[str, Sum]
    runs: tuple[RunSum, ...]


def read(figures: Figures) -> Results:
    """The report's figures as typed values."""
    tasks = {task["name"]: _task(task) for task in figures["tasks"]}
    return Results(tasks, tuple(figures["notes"]), figures)


def _task(task: Task) -> TaskResults:
    means = ({**row, "language": None} for row in task["pooled"])
    return TaskResults(
        name=task["name"],
        languages=tuple(task["languages"]),
        metrics=tuple(task["metrics"]),
        systems=tuple(row["name"] for row in task["systems"]),
        chosen=task["chosen"],
        scores=tuple(_of(Score, row) for row in task["scores"]),
        verdicts=tuple(_of(Verdict, row) for row in (*task["verdicts"], *means)),
        costs=task["costs"],
    )


def _of(kind: type[T], row: Mapping[str, Any]) -> T:
    return kind(**{one.name: row[one.name] for one in fields(kind)})  # type: ignore[arg-type]
