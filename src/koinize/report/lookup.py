"""Questions that several sections ask of the results."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from koinize.ledger.scopes import Scope
from koinize.report.cost_figures import Range, ScopeRow
from koinize.report.figures import (
    Difference,
    Estimate,
    JointRow,
    PooledRow,
    Results,
    ScoreRow,
    SystemRow,
    Task,
    VerdictRow,
)
from koinize.report.formats import difference, interval, points

MAIN = ("base", "individual", "single", "combined", "mean")


def main_systems(task: Task) -> list[SystemRow]:
    """The baselines and the chosen merge: what the question is about."""
    return [one for one in task["systems"] if one["kind"] in MAIN or one["chosen"]]


def other_systems(task: Task) -> list[SystemRow]:
    """The remaining candidates and every language's adapter on the other languages."""
    main = main_systems(task)
    return [one for one in task["systems"] if one not in main and not one["same_as"]]


def individual(task: Task) -> str | None:
    """The name under which each language has its own adapter."""
    return next((one["name"] for one in task["systems"] if one["kind"] == "individual"), None)


def single(task: Task) -> SystemRow | None:
    """The one language's adapter that was best over all languages on dev."""
    return next((one for one in task["systems"] if one["kind"] == "single"), None)


def is_reference(task: Task) -> bool:
    """Whether what was chosen is the reference itself: the same adapter under two names."""
    chosen = (one for one in task["systems"] if one["chosen"])
    return any(one["same_as"] == task["reference"] for one in chosen)


def score(
    task: Task, split: str, metric: str, system: str | None, language: str | None
) -> ScoreRow | None:
    """One score; language None asks for the mean over all."""
    wanted = split, metric, system, language
    for row in task["scores"]:
        if (row["split"], row["metric"], row["system"], row["language"]) == wanted:
            return row
    return None


def verdict(
    task: Task, metric: str, system: str | None, reference: str, language: str
) -> VerdictRow | None:
    """One comparison on test."""
    wanted = metric, system, reference, language
    for row in task["verdicts"]:
        if (row["metric"], row["system"], row["reference"], row["language"]) == wanted:
            return row
    return None


def joint(task: Task, metric: str, system: str | None, reference: str) -> JointRow | None:
    """The verdict over all languages."""
    wanted = metric, system, reference
    for row in task["joint"]:
        if (row["metric"], row["system"], row["reference"]) == wanted:
            return row
    return None


def pooled(task: Task, metric: str, system: str | None, reference: str) -> PooledRow | None:
    """The verdict on the mean over languages."""
    wanted = metric, system, reference
    for row in task["pooled"]:
        if (row["metric"], row["system"], row["reference"]) == wanted:
            return row
    return None


def seeds_of(row: PooledRow | None) -> int:
    """With how many seeds of the trainings a comparison was made."""
    return max(1, len(row["by_seed"])) if row else 1


def seeds(task: Task) -> int:
    """The same of the chosen merge against the reference."""
    found = chosen_verdicts(task, task["reference"])
    return max(map(seeds_of, found), default=1)


def mean_update(task: Task, scope: Scope) -> ScopeRow | None:
    """An update in one scope, in the mean over languages; None unless every language's is known.

    It was measured as such only if each was. COMB is the same for every language.
    """
    rows = [
        one
        for update in task["costs"]["updates"]
        for one in update["scopes"]
        if one["scope"] == scope
    ]
    updates = [one["update"] for one in rows if one["update"]]
    if not rows or len(updates) < len(rows) or rows[0]["combined"] is None:
        return None
    costs, best = [one["cost"] for one in updates], [one["saved_at_best"] for one in rows]
    less = [one["savings"] for one in rows]
    return {
        "scope": scope,
        "update": {
            "elapsed_seconds": fmean(one["elapsed_seconds"] for one in updates),
            "machine_seconds": fmean(one["machine_seconds"] for one in updates),
            "cost": _mean(costs),
            "steps": updates[0]["steps"],
        },
        "update_is": "derived"
        if len({one["update_is"] for one in rows}) > 1
        else rows[0]["update_is"],
        "combined": rows[0]["combined"],
        "combined_is": rows[0]["combined_is"],
        "savings": {
            "elapsed": _mean([one["elapsed"] for one in less]),
            "machine": _mean([one["machine"] for one in less]),
            "cost": _mean([one["cost"] for one in less]),
        },
        # COMB, and what strays with it, is in every language's: as if all strayed alike.
        "savings_interval": {
            "elapsed": _mean_range([one["savings_interval"]["elapsed"] for one in rows]),
            "machine": _mean_range([one["savings_interval"]["machine"] for one in rows]),
            "cost": _mean_range([one["savings_interval"]["cost"] for one in rows]),
        },
        "saved_at_best": _mean(best),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless all are known."""
    known = [one for one in values if one is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _mean_range(ranges: Sequence[Range]) -> Range:
    known = [one for one in ranges if one]
    return [fmean(ends) for ends in zip(*known, strict=True)] if len(known) == len(ranges) else None


def sharing(results: Results, task: Task) -> list[str]:
    """The tasks that one adapter serves, of which this is one; empty where it has its own."""
    across: list[str] = results["spec"].get("merge", {}).get("across", [])
    return across if task["name"] in across else []


def languages_and_mean(task: Task) -> list[str | None]:
    """Every language, then None for their mean where there are several."""
    several = len(task["languages"]) > 1
    return [*task["languages"], None] if several else list(task["languages"])


def column(language: str | None) -> str:
    """How a column of scores is called."""
    return language or "mean"


def by_verdict(rows: Sequence[VerdictRow]) -> dict[str, list[str]]:
    """Verdict -> its languages, the good ones first."""
    order = ("better", "not worse", "inconclusive", "worse")
    groups = {name: [row["language"] for row in rows if row["verdict"] == name] for name in order}
    return {name: languages for name, languages in groups.items() if languages}


def chosen_verdicts(task: Task, reference: str) -> list[VerdictRow]:
    """The chosen merge against a reference by the selecting metric, language by language."""
    metric, chosen = task["metrics"][0], task["chosen"]
    found = [verdict(task, metric, chosen, reference, one) for one in task["languages"]]
    return [row for row in found if row]


def with_interval(row: Estimate | None) -> tuple[str, str]:
    """A score and its interval."""
    return (points(row["value"]), interval(row["low"], row["high"])) if row else (points(None), "")


def difference_with_interval(row: Difference | None) -> tuple[str, str]:
    """A difference and its interval."""
    if row is None:
        return difference(None), ""
    return difference(row["difference"]), interval(row["low"], row["high"], signed=True)


def named(tasks: Sequence[Task], task: Task) -> str:
    """The heading of a task; empty where there is only one."""
    return str(task["name"]) if len(tasks) > 1 else ""
