"""Questions that several sections ask of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koinize.report.formats import difference, interval, points

Task = Mapping[str, Any]
Row = Mapping[str, Any]

MAIN = ("base", "individual", "combined", "mean")


def main_systems(task: Task) -> list[Row]:
    """The baselines and the chosen merge: what the question is about."""
    return [one for one in task["systems"] if one["kind"] in MAIN or one["chosen"]]


def other_systems(task: Task) -> list[Row]:
    """The remaining candidates and every language's adapter on the other languages."""
    main = main_systems(task)
    return [one for one in task["systems"] if one not in main and not one["same_as"]]


def individual(task: Task) -> str | None:
    """The name under which each language has its own adapter."""
    return next((one["name"] for one in task["systems"] if one["kind"] == "individual"), None)


def score(task: Task, split: str, metric: str, system: str, language: str | None) -> Row | None:
    """One score; language None asks for the mean over all."""
    wanted = split, metric, system, language
    keys = "split", "metric", "system", "language"
    return next((row for row in task["scores"] if tuple(row[key] for key in keys) == wanted), None)


def verdict(task: Task, metric: str, system: str, reference: str, language: str) -> Row | None:
    """One comparison on test."""
    wanted = metric, system, reference, language
    keys = "metric", "system", "reference", "language"
    return next(
        (row for row in task["verdicts"] if tuple(row[key] for key in keys) == wanted), None
    )


def joint(task: Task, metric: str, system: str, reference: str) -> Row | None:
    """The verdict over all languages."""
    wanted = metric, system, reference
    keys = "metric", "system", "reference"
    return next((row for row in task["joint"] if tuple(row[key] for key in keys) == wanted), None)


def languages_and_mean(task: Task) -> list[str | None]:
    """Every language, then None for their mean where there are several."""
    several = len(task["languages"]) > 1
    return [*task["languages"], None] if several else list(task["languages"])


def column(language: str | None) -> str:
    """How a column of scores is called."""
    return language or "mean"


def by_verdict(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Verdict -> its languages, the good ones first."""
    order = ("better", "not worse", "inconclusive", "worse")
    groups = {name: [row["language"] for row in rows if row["verdict"] == name] for name in order}
    return {name: languages for name, languages in groups.items() if languages}


def chosen_verdicts(task: Task, reference: str) -> list[Row]:
    """The chosen merge against a reference by the selecting metric, language by language."""
    metric, chosen = task["metrics"][0], task["chosen"]
    found = [verdict(task, metric, chosen, reference, one) for one in task["languages"]]
    return [row for row in found if row]


def with_interval(row: Row | None) -> tuple[str, str]:
    """A score and its interval."""
    return (points(row["value"]), interval(row["low"], row["high"])) if row else (points(None), "")


def difference_with_interval(row: Row | None) -> tuple[str, str]:
    """A difference and its interval."""
    if row is None:
        return difference(None), ""
    return difference(row["difference"]), interval(row["low"], row["high"], signed=True)


def named(tasks: Sequence[Task], task: Task) -> str:
    """The heading of a task; empty where there is only one."""
    return str(task["name"]) if len(tasks) > 1 else ""
