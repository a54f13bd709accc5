"""What was answered where labels are fixed: how often each label, and which for which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from koinize.report.blocks import Block, Cell, Paragraph, Table, plain
from koinize.report.collapsed import said
from koinize.report.figures import Answers, Task
from koinize.report.section import TaskSection


class Answered(TaskSection):
    """Per task: label counts, systems that know one answer only, and the confusions, folded."""

    title = "Answers"
    order = 25

    def of_task(self, task: Task) -> Sequence[Block]:
        """Nothing where no labels are fixed, or nobody was tested."""
        if not task["answers"]:
            return []
        collapsed = [Paragraph(said(one)) for one in task["collapsed"]]
        return [*collapsed, _counts(task), *_confusions(task)]


def _counts(task: Task) -> Table:
    """Per language the truth, then each system."""
    rows: list[tuple[Cell, ...]] = []
    truths: set[int] = set()
    for language in task["languages"]:
        found = [one for one in task["answers"] if one["language"] == language]
        for one in found[:1]:
            truths.add(len(rows))
            rows.append(_row(f"{language}: the truth", [sum(some) for some in one["counts"]]))
        for one in found:
            answered = [sum(column) for column in zip(*one["counts"], strict=True)]
            rows.append(_row(f"{language}: {one['system']}", answered))
    return Table(
        columns=("language", *task["labels"]),
        rows=tuple(rows),
        caption="how many test rows have each label, and how many were answered with it",
        numbers=frozenset(range(1, len(task["labels"]) + 1)),
        highlight=frozenset(truths),
    )


def _row(name: str, counts: Sequence[int]) -> tuple[Cell, ...]:
    return (plain(name), *(plain(one) for one in counts))


def _confusions(task: Task) -> Iterator[Table]:
    for system in dict.fromkeys(one["system"] for one in task["answers"]):
        found = [one for one in task["answers"] if one["system"] == system]
        yield Table(
            columns=("the truth", *task["labels"]),
            rows=tuple(row for one in found for row in _confused(one, task["labels"])),
            caption=f"test rows by their label (left) and by what {system} answered (above)",
            numbers=frozenset(range(1, len(task["labels"]) + 1)),
            folded=f"Which label {system} answered for which",
        )


def _confused(one: Answers, labels: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
    for place, (label, counts) in enumerate(zip(labels, one["counts"], strict=True)):
        cells = (
            Cell(str(count), tone="strong" if at == place else "")
            for at, count in enumerate(counts)
        )
        yield plain(f"{one['language']}: {label}"), *cells


section = Answered()
