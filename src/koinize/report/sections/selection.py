"""How the merge was chosen: every candidate on dev."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report.blocks import Block, Cell, Heading, Paragraph, Table, plain, reading
from koinize.report.figures import CandidateRow, Estimate, Results, Task
from koinize.report.formats import DASH
from koinize.report.lookup import (
    column,
    difference_with_interval,
    languages_and_mean,
    named,
    sharing,
    with_interval,
)
from koinize.report.section import Section

RULE = (
    "Candidates were compared on dev alone, by the mean over languages; no figure on test chose "
    "anything. The winner's dev score is the best of several and so a little too high: its test "
    "score is the honest one. Best in: of 1,000 resamples of the dev rows, the share in which the "
    "candidate would have won."
)

SHARED = (
    "One adapter serves {tasks}, so the choice is one for all of them: the candidate whose means "
    "over languages, each divided by its task's margin, add up to the most. Best in, and the order "
    "of the candidates, are by each task alone."
)


class Selection(Section):
    """Per task: the candidates, the best first."""

    title = "Choice on dev"
    order = 50

    def data(self, results: Results) -> Sequence[Block]:
        """Nothing where no candidate was scored on dev."""
        tasks = [task for task in results["tasks"] if _scored(task)]
        blocks: list[Block] = [reading(RULE)] if tasks else []
        if tasks and (across := results["spec"].get("merge", {}).get("across")):
            blocks.append(Paragraph(SHARED.format(tasks=", ".join(across)), "muted"))
        for task in tasks:
            if heading := named(results["tasks"], task):
                blocks.append(Heading(heading))
            blocks.append(_table(task))
            if said := _luck(task, sharing(results, task)):
                blocks.append(Paragraph(said))
        return blocks


def _scored(task: Task) -> bool:
    return any(row["mean"] for row in task["selection"])


def _luck(task: Task, together: Sequence[str]) -> str:
    """How far the choice is from chance, on dev and on test; `together`: the tasks it serves."""
    chosen = next((row for row in task["selection"] if row["chosen"]), None)
    if chosen is None or chosen["best_in"] is None:
        return ""
    share = f"{100 * chosen['best_in']:.0f} %"
    alone = f"By {task['name']} alone, " if together else ""
    said = f"{alone}{chosen['name']} would have won on {share} of the resamples of dev"
    if (mean := task["against_mean"]) is None:
        return f"{said}."
    less, ends = difference_with_interval(mean)
    return f"{said}; against {mean['reference']} it is {less} {ends} points on test."


def _table(task: Task) -> Table:
    languages = languages_and_mean(task)
    return Table(
        columns=("candidate", "best in", *(column(one) for one in languages)),
        rows=tuple(_row(row, languages) for row in task["selection"]),
        caption=f"{task['metrics'][0]} on dev, in points, with 95 % intervals",
        numbers=frozenset(range(1, len(languages) + 2)),
        highlight=frozenset(i for i, row in enumerate(task["selection"]) if row["chosen"]),
        repeated=frozenset(i for i, row in enumerate(task["selection"]) if row["same_as"]),
    )


def _row(row: CandidateRow, languages: Sequence[str | None]) -> tuple[Cell, ...]:
    same = f"the same merge as {row['same_as']}" if row["same_as"] else ""
    name = Cell(row["name"], "chosen" if row["chosen"] else same)
    found = [row["mean"] if one is None else row["languages"][one] for one in languages]
    tone = "muted" if row["same_as"] else ""
    best_in = DASH if row["best_in"] is None else f"{100 * row['best_in']:.0f} %"
    return name, plain(best_in), *(_score(one, tone) for one in found)


def _score(row: Estimate | None, tone: str) -> Cell:
    title = f"{row['n']} rows" if row else ""
    return Cell(*with_interval(row), "muted" if tone else "", title)


section = Selection()
