"""A run from its first step to its report, and whoever wants to know how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from koinize.api.reporting import REPORT, is_outdated, report_results, write_report
from koinize.errors import StepError
from koinize.pipeline import Plan, Project, Step, Watcher
from koinize.pipeline.endings import bad_ends, repeated

if TYPE_CHECKING:
    from koinize.api.found import Results


@dataclass(frozen=True)
class Run:
    """What a run did: the names of its steps in the order in which they ended, what is worth a
    word about its trainings, which of them were repeated, and the report that it wrote.
    """

    done: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    report: Path
    project: Project = field(repr=False)

    def results(self) -> Results:
        """Scores, verdicts and costs, as `koinize.Project.results`."""
        from koinize.api.found import read

        return read(report_results(self.project))


def run(project: Project, watcher: Watcher, approve: Callable[[Plan], None]) -> Run:
    """Do what is missing and write the report; `approve` may raise to refuse it.

    Raises StepError, which names every step that failed, once all others are done.
    """
    todo, outcome = project.run(watcher, approve)
    if outcome.failed:
        lines = [*outcome.failed.values(), f"{len(outcome.skipped)} steps wait for them"]
        raise StepError("\n".join(lines))
    warnings = tuple(bad_ends(project, outcome.done))
    notes = tuple(repeated(project, outcome.done))
    report = project.root / REPORT
    if todo.missing or is_outdated(report, project):
        write_report(report_results(project), report)
    return Run(tuple(outcome.done), warnings, notes, report, project)


@dataclass(frozen=True)
class Progress:
    """Something happened in a run.

    `what`: the run was "planned" (or goes on after a search, with more steps); a step "started",
    "resumed" after the `parts_done` of an earlier run, "moved" on to so many, is "done" or
    "failed". `steps_done` of `steps` are over. `seconds` that an ended step took, and the `error`
    of one that failed.
    """

    what: Literal["planned", "started", "resumed", "moved", "done", "failed"]
    steps_done: int
    steps: int
    step: str = ""
    parts_done: int = 0
    parts: int = 0
    seconds: float = 0.0
    error: str = ""


class Teller:
    """A watcher that calls a function with every `Progress`; what that raises ends the run."""

    def __init__(self, tell: Callable[[Progress], object] | None) -> None:
        self.tell = tell or (lambda _: None)
        self.done = self.steps = 0

    def planned(self, todo: Plan) -> None:
        """So many steps, and those that are over."""
        self.steps = self.done + len(todo.missing)
        self.tell(Progress("planned", self.done, self.steps))

    def started(self, step: Step) -> None:
        """A step began."""
        self.tell(Progress("started", self.done, self.steps, step.name))

    def resumed(self, step: Step, done: int, total: int) -> None:
        """It goes on where an earlier run left it."""
        self.tell(Progress("resumed", self.done, self.steps, step.name, done, total))

    def moved(self, step: Step, done: int, total: int) -> None:
        """It did some of its parts."""
        self.tell(Progress("moved", self.done, self.steps, step.name, done, total))

    def ended(self, step: Step, seconds: float, error: str) -> None:
        """It is over."""
        self.done += not error
        told = Progress(
            "failed" if error else "done",
            self.done,
            self.steps,
            step.name,
            seconds=seconds,
            error=error,
        )
        self.tell(told)
