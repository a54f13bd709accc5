"""What answering takes each system: its rank, and how fast it was on test."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report.blocks import Block, Cell, Table, plain
from koinize.report.figures import Inference, Task
from koinize.report.formats import DASH, duration
from koinize.report.lookup import main_systems
from koinize.report.section import TaskSection

RULE = (
    "From the seconds in which test was scored, an adapter beside the base model. Putting it on is "
    "part of them, so on few rows they say little."
)
SHARED = "a part of the time of several systems"


class Answering(TaskSection):
    """Per task: rank, rows and tokens per second of the baselines and the chosen merge."""

    title = "Inference"
    order = 43
    rule = RULE

    def of_task(self, task: Task) -> Sequence[Block]:
        """Nothing where the ledger does not have it."""
        return [_table(task)] if _shown(task) else []


def _shown(task: Task) -> list[Inference]:
    main = {one["name"] for one in main_systems(task)}
    return [one for one in task["inference"] if one["system"] in main]


def _table(task: Task) -> Table:
    ranks = {one["name"]: one["rank"] for one in task["systems"]}
    chosen = {n for n, one in enumerate(_shown(task)) if one["system"] == task["chosen"]}
    return Table(
        columns=("system", "rank", "test rows", "took", "rows per second", "tokens per second"),
        rows=tuple(_row(one, ranks[one["system"]]) for one in _shown(task)),
        caption="seconds of one worker; tokens are those that the system wrote",
        numbers=frozenset({1, 2, 3, 4, 5}),
        highlight=frozenset(chosen),
    )


def _row(one: Inference, rank: int | None) -> tuple[Cell, ...]:
    return (
        plain(one["system"]),
        plain(DASH if rank is None else rank),
        plain(f"{one['rows']:,}"),
        Cell(duration(one["seconds"]), SHARED if one["shared"] else ""),
        plain(_per_second(one["rows"], one["seconds"])),
        plain(_per_second(one["tokens"], one["seconds"])),
    )


def _per_second(amount: int | None, seconds: float) -> str:
    return f"{amount / seconds:,.1f}" if amount is not None and seconds else DASH


section = Answering()
