"""What is missing, why and at what price, and the run that does just that."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field

from koinize import pipeline
from koinize.api.running import Progress, Run, Teller, run
from koinize.errors import InputError
from koinize.pipeline.estimate import Estimate
from koinize.pipeline.lengths import warnings
from koinize.pipeline.limits import Limits
from koinize.pipeline.wording import unfair_combs


@dataclass(frozen=True)
class PlannedStep:
    """A step that has to run, why, and the wall seconds that it is expected to take.

    `id` is the digest of all that determines what it makes.
    """

    name: str
    id: str
    why: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The missing steps in order, of `total` in all, and what they will take.

    `wall` and `machine` are seconds of the two clocks, `cost` is in `currency`, idle time included
    (both None without a price in koinize.yaml); each should lie in its interval 19 times out of 20.
    `guessed` names the kinds of steps of which the ledger knows nothing yet. `warnings` are about
    the data, long rows and memory.
    """

    steps: tuple[PlannedStep, ...]
    total: int
    wall: Estimate
    machine: Estimate
    cost: Estimate | None
    currency: str | None
    guessed: tuple[str, ...]
    warnings: tuple[str, ...]
    project: pipeline.Project = field(repr=False)

    def run(
        self,
        progress: Callable[[Progress], object] | None = None,
        *,
        max_cost: float | None = None,
        max_seconds: float | None = None,
    ) -> Run:
        """Do these steps and write the report; what another run did meanwhile is not done again.

        `progress` is called with all that happens, in this thread; what it raises ends the run, and
        what is finished is kept. Nothing starts where an estimate may exceed `max_cost` or
        `max_seconds` of wall time (LimitError), nor where other steps are missing by now than were
        planned (InputError). A step that fails raises StepError, after all that does not need it.
        """
        _refuse_workers()
        limits = Limits(max_cost, max_seconds)

        def approve(todo: pipeline.Plan) -> None:
            _refuse_other(self, todo)
            limits.check(todo)

        return run(_again(self.project), Teller(progress), approve)


def planned(project: pipeline.Project, todo: pipeline.Plan) -> Plan:
    """The plan of a project, for whoever wants to read it or do it."""
    return Plan(
        steps=tuple(
            PlannedStep(one.step.name, one.step.id, one.why, one.seconds) for one in todo.missing
        ),
        total=todo.total,
        wall=todo.wall,
        machine=todo.machine,
        cost=todo.cost(todo.wall),
        currency=todo.price.get("currency"),
        guessed=todo.guessed,
        warnings=plan_warnings(project, todo),
        project=project,
    )


def plan_warnings(project: pipeline.Project, todo: pipeline.Plan) -> tuple[str, ...]:
    """What is worth a word before it runs: of the data, of a COMB of other words, of rows that are
    cut, of memory.
    """
    memory = [todo.memory.warning] if todo.memory and todo.memory.warning else []
    unfair = unfair_combs(project.steps)
    return (*project.inputs.findings, *unfair, *warnings(todo.lengths or {}), *memory)


def _again(project: pipeline.Project) -> pipeline.Project:
    """The same as its files are now: a run reads them itself."""
    return pipeline.Project.at(
        project.file,
        retrain_comb=project.retrain_comb,
        new_generation=project.new_generation,
        choose_again=project.choose_again,
    )


def _refuse_other(planned: Plan, todo: pipeline.Plan) -> None:
    known = {one.id for one in planned.steps}
    if other := [one.step.name for one in todo.missing if one.step.id not in known]:
        count = f" and {len(other) - 1} more" if other[1:] else ""
        raise InputError(
            f"'{other[0]}'{count} was not planned like that: something changed since",
            where=str(planned.project.file),
            remedy="plan again",
        )


def _refuse_workers() -> None:
    """Raise InputError in a worker that imports the script which started it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "a worker of this run imports the script and would run it again",
            remedy="put what the script does under `if __name__ == '__main__':`",
        )
