"""What a task's test rows will be able to show, said before anything is spent on them.

Few rows do not show that a small margin holds, even if all answers are equal: the rare loss that
was not seen may be there. Better to know it when rows can still be added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from koinize.gate import fewest_rows, smallest_margin
from koinize.pipeline.project import Project
from koinize.pipeline.results import TEST, Results

_fewest = cache(fewest_rows)
_smallest = cache(smallest_margin)


@dataclass(frozen=True)
class TooFew:
    """Languages whose test rows, so many each, do not show the margin of the task's first metric
    even if all answers are equal; `smallest` is the margin that the fewest of them then show, in
    points, and with `needed` rows they would show this one.
    """

    task: str
    metric: str
    margin: float
    rows: dict[str, int]
    smallest: float
    needed: int

    def __str__(self) -> str:
        few, many = min(self.rows.values()), max(self.rows.values())
        rows = f"{few} test rows" if few == many else f"{few} to {many} test rows"
        return (
            f"{self.task}: with {rows} of {', '.join(self.rows)}, even equal answers do not show "
            f"that less than {self.margin:g} points of {self.metric} were lost, only less than "
            f"{self.smallest:g}; with {self.needed:,} rows a language they do"
        )


def too_few_rows(project: Project) -> Iterator[TooFew]:
    """One for each task in which a language has too few test rows."""
    for task in project.spec.tasks:
        results = Results(project, task)
        metric, margin = results.metric.name, results.margins[results.metric.name]
        if not margin > 0:
            continue
        needed = _fewest(margin)
        splits = project.inputs.splits
        found = {one: splits.get((task, one, TEST)) for one in project.spec.languages}
        rows = {one: facts.rows for one, facts in found.items() if facts and facts.rows < needed}
        if rows:
            smallest = _smallest(min(rows.values()))
            yield TooFew(task, metric, margin, rows, smallest, needed)
