"""Adapters that learnt nothing, or one answer: what a table of means may hide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from koinize.report.figures import Task
from koinize.report.input import TaskInput

ONE_ANSWER = 0.9  # of the rows
FEWEST = 10  # rows, below which a share says little


def collapse_notes(source: TaskInput, task: Task) -> Iterator[str]:
    """Sentences on trained systems that give one label to nearly all test rows, or lose to BASE."""
    trained = {one.name for one in source.systems if one.kind in ("individual", "combined")}
    for found in source.evaluations:
        if found.system not in trained or found.split != "test" or not source.labels:
            continue
        count = len(found.rows)
        label, times = Counter(row["prediction"] for row in found.rows).most_common(1)[0]
        right = sum(row["gold"] == label for row in found.rows)
        if count >= FEWEST and times > ONE_ANSWER * count and right <= ONE_ANSWER * count:
            yield (
                f"{source.name}: {found.system} answers '{label}' in {times} of {count} rows of "
                f"{found.language} test, where it is right in {right}."
            )
    yield from _worse_than_base(source, task, trained)


def _worse_than_base(source: TaskInput, task: Task, trained: set[str]) -> Iterator[str]:
    """By more than the margin, in the metric that chooses."""
    base = next((one.name for one in source.systems if one.kind == "base"), None)
    metric = source.metrics[0]
    scores = {
        (row["system"], row["language"]): row["value"]
        for row in task["scores"]
        if row["split"] == "test" and row["metric"] == metric and row["language"]
    }
    for (system, language), value in scores.items():
        without = scores.get((base or "", language))
        allowed = source.margins.get(metric, 0.0)
        if system in trained and without is not None and without - value > allowed:
            yield (
                f"{source.name}: {system} scores {value:.1f} in {language} ({metric}, test), and "
                f"BASE without an adapter {without:.1f}."
            )
