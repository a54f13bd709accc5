"""What a language may lose, by metric; and what was said of it when test was first scored.

A margin that is chosen with the test scores in sight shows nothing. So the run that scores a task
on test for the first time writes the margins into the ledger before it does, and a run after one of
them was changed writes a line more. The report says which it was.
"""

from __future__ import annotations

from collections.abc import Iterable

from koinize.ledger import Ledger, last_stated
from koinize.metrics import metrics
from koinize.pipeline.step import Step
from koinize.spec import Spec

TEST = "test"


def margins_of(spec: Spec, task: str) -> dict[str, float]:
    """Points that a language may lose, by metric: the task's word, else the project's, else the
    metric's own.
    """
    definition = spec.tasks[task]
    own = {**spec.margins, **definition.margins}
    return {name: own.get(name, metrics.get(name).margin) for name in definition.metrics}


def commit_margins(ledger: Ledger, spec: Spec, steps: Iterable[Step]) -> None:
    """Record the margins of every task that these steps will score on test, if they are others than
    the ones that were recorded last.
    """
    scored = {one.task for one in steps if one.kind in ("evaluate", "judge") and one.split == TEST}
    for task in sorted(scored & spec.tasks.keys()):
        today = margins_of(spec, task)
        if last_stated(ledger.records(), task) != today:
            ledger.state_margins(task, today)
