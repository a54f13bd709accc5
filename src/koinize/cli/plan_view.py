"""A plan as a table for people, and as JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from rich.console import Console
from rich.table import Table

from koinize.pipeline import Missing, Plan, Project

ROWS_BEFORE_GROUPING = 24


def show_plan(todo: Plan, project: Project) -> None:
    """Print what is missing, why, and the estimate on both clocks."""
    console = Console()
    for finding in project.inputs.findings:
        console.print(f"warning: {finding}", style="yellow", markup=False)
    if not todo.missing:
        console.print(f"nothing is missing: all {todo.total} steps are done")
        return
    table = Table("step", "why", "estimated", box=None, pad_edge=False, header_style="bold")
    table.columns[2].justify = "right"
    for name, why, seconds in _lines(todo.missing):
        table.add_row(name, why, duration(seconds))
    console.print(table)
    console.print(f"{len(todo.missing)} of {todo.total} steps are missing; {estimate(todo)}")


def plan_json(todo: Plan, project: Project) -> dict[str, object]:
    """The same as plain data."""
    return {
        "total": todo.total,
        "missing": [
            {"step": one.step.name, "id": one.step.id, "why": one.why, "seconds": one.seconds}
            for one in todo.missing
        ],
        "wall_seconds": todo.wall_seconds,
        "machine_seconds": todo.machine_seconds,
        "cost": None if todo.cost is None else str(todo.cost),
        "currency": todo.currency,
        "estimated_from": "the ledger" if todo.learnt else "first guesses",
        "findings": list(project.inputs.findings),
    }


def estimate(todo: Plan) -> str:
    """Both clocks and the money, in one clause."""
    text = f"about {duration(todo.wall_seconds)} of wall time"
    text += f" and {duration(todo.machine_seconds)} of this machine"
    if todo.cost is not None:
        text += f", {todo.cost:.4f} {todo.currency}"
    return text + ("" if todo.learnt else " (a first guess: the ledger is empty)")


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 52 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _lines(missing: Iterable[Missing]) -> Iterable[tuple[str, str, float]]:
    """A line a step; a long run of evaluations of one task and split becomes one line."""
    listed = list(missing)
    if len(listed) <= ROWS_BEFORE_GROUPING:
        yield from ((one.step.name, one.why, one.seconds) for one in listed)
        return
    for (kind, task, split, why), group in groupby(listed, _alike):
        some = list(group)
        seconds = sum(one.seconds for one in some)
        if kind != "evaluate" or len(some) == 1:
            yield from ((one.step.name, one.why, one.seconds) for one in some)
        else:
            yield f"evaluate/{task}/... {split}, {len(some)} steps", why, seconds


def _alike(one: Missing) -> tuple[str, str, str, str]:
    why = one.why if one.step.kind != "evaluate" else "systems or rows changed"
    never = one.step.kind == "evaluate" and one.why == "never done"
    return one.step.kind, one.step.task, one.step.split, "never done" if never else why
