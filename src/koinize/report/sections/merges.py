"""What was merged how: settings, rank and what a limited rank lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koinize.report.blocks import Block, Table, plain
from koinize.report.figures import SystemRow, Task
from koinize.report.formats import DASH, duration, share
from koinize.report.section import TaskSection

RULE = (
    "Rank is that of the written adapter. The truncation error is the share of the merged update "
    "that a limited rank could not hold (relative Frobenius norm); 0 means that nothing was lost."
)


class Merges(TaskSection):
    """Per task: the recipe of every merge."""

    title = "Merges"
    order = 60
    rule = RULE

    def of_task(self, task: Task) -> Sequence[Block]:
        """Nothing where nothing was merged."""
        return [_table(task)] if _merged(task) else []


def _merged(task: Task) -> list[SystemRow]:
    return [one for one in task["systems"] if one["kind"] in ("candidate", "mean")]


def _table(task: Task) -> Table:
    merged = _merged(task)
    seconds = task["costs"]["merge_seconds"]
    rows = tuple(
        (
            plain(one["name"]),
            plain(_settings(one["settings"])),
            plain(DASH if one["rank"] is None else one["rank"]),
            plain(share(one["truncation_error"])),
            plain("" if one["same_as"] else duration(seconds.get(one["name"]))),
            plain(one["same_as"] or ""),
        )
        for one in merged
    )
    return Table(
        columns=("merge", "settings", "rank", "truncation error", "merging took", "same as"),
        rows=rows,
        numbers=frozenset({2, 3, 4}),
        highlight=frozenset(i for i, one in enumerate(merged) if one["chosen"]),
        repeated=frozenset(i for i, one in enumerate(merged) if one["same_as"]),
    )


def _settings(settings: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in settings.items() if value not in ({}, None)}
    if groups := shown.get("groups"):
        shown["groups"] = " | ".join(" + ".join(group) for group in groups)
    return ", ".join(f"{key} {value}" for key, value in shown.items()) or DASH


section = Merges()
