"""What labels were answered, and adapters that learnt nothing or one answer: what a mean may hide.

A system collapsed in a language if more than nine tenths of its answers on test are one label, the
other labels get less than half as many answers as they have rows, and chance does not explain it:
were the label answered too often as easily as too seldom, the rows that have it answered wrongly
and those that lack it would be a fair coin's (McNemar 1947, the exact test). Its p-value is held
against 2.5 %, divided by the number of systems and languages that are looked at, so that few rows
raise no alarm: eleven such rows of one kind are needed where thirty places are looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from koinize.report.figures import Collapse, Task
from koinize.report.input import TaskInput

ONE_ANSWER = 0.9  # of the rows
OTHERS = 0.5  # answers to the other labels, of their rows
LEVEL = 0.025
TRAINED = ("individual", "single", "combined", "mean")


def confusion(labels: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """How many rows of each label (the outer index) were answered with each (the inner one)."""
    found = Counter((row["gold"], row["prediction"]) for row in rows)
    return [[found[gold, answer] for answer in labels] for gold in labels]


def collapses(source: TaskInput) -> Iterator[Collapse]:
    """The trained systems, and the chosen merge, that give one label to nearly all test rows."""
    trained = {one.name for one in source.systems if one.kind in TRAINED or one.chosen}
    looked_at = [
        one
        for one in source.evaluations
        if one.system in trained and one.split == "test" and source.labels
    ]
    for found in looked_at:
        n = len(found.rows)
        label, times = Counter(row["prediction"] for row in found.rows).most_common(1)[0]
        right = sum(row["gold"] == label == row["prediction"] for row in found.rows)
        rows = sum(row["gold"] == label for row in found.rows)
        if times <= ONE_ANSWER * n or n - times >= OTHERS * (n - rows):
            continue
        p_value = sign_test(times - right, rows - right)
        if p_value <= LEVEL / len(looked_at):
            yield {
                "system": found.system,
                "language": found.language,
                "label": label,
                "times": times,
                "right": right,
                "n": n,
                "p_value": p_value,
            }


def sign_test(more: int, fewer: int) -> float:
    """The probability that of so many throws of a fair coin at least `more` are heads."""
    from scipy.special import betainc

    return float(betainc(more, fewer + 1, 0.5)) if more else 1.0


def said(one: Collapse) -> str:
    """The sentence about it."""
    return (
        f"{one['system']} answers '{one['label']}' in {one['times']} of {one['n']} rows of "
        f"{one['language']} test, where it is right in {one['right']}."
    )


def collapse_notes(source: TaskInput, task: Task) -> Iterator[str]:
    """Sentences on trained systems that give one label to nearly all test rows, or lose to BASE."""
    yield from (f"{source.name}: {said(one)}" for one in task["collapsed"])
    yield from _worse_than_base(source, task)


def _worse_than_base(source: TaskInput, task: Task) -> Iterator[str]:
    """By more than the margin, in the metric that chooses."""
    base = next((one.name for one in source.systems if one.kind == "base"), None)
    trained = {one.name for one in source.systems if one.kind in ("individual", "combined")}
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
