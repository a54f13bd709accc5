"""Releases -> how every language's score moved from one to the next, and since the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from koinize.metrics import (
    RESAMPLES,
    JudgedMetric,
    Metric,
    interval,
    metrics,
    paired_differences,
    score,
)
from koinize.report.figures import Difference, Drift, ReleaseScore
from koinize.report.input import ReleaseInput, TaskInput
from koinize.report.quality import estimate

Rows = Sequence[Mapping[str, Any]]


def drift(task: TaskInput, releases: Sequence[ReleaseInput]) -> Drift | None:
    """One task's releases on its first metric, as far as they were scored by it; None where there
    is none.

    A language's drift is that against the first release that served it, on the test rows that both
    answered and whose truth did not change, paired, with its 95 % bootstrap interval.
    """
    name = task.metrics[0]
    metric = metrics.get(name).over(task.labels).by(task.judges.get(name, {}))
    ours = [one for one in releases if one.task == task.name and _is_scored(metric, one)]
    if not ours:
        return None
    languages = sorted({language for one in ours for language in one.rows})
    return {
        "task": task.name,
        "metric": name,
        "releases": [
            {"version": one.version, "channels": one.channels, "created": one.created}
            for one in ours
        ],
        "scores": [row for language in languages for row in _language(metric, language, ours)],
    }


def _is_scored(metric: Metric, release: ReleaseInput) -> bool:
    """Whether its rows were judged, where the metric asks for that, by today's judge."""
    rows = (row for rows in release.rows.values() for row in rows)
    return not isinstance(metric, JudgedMetric) or all(map(metric.has, rows))


def _language(
    metric: Metric, language: str, releases: Sequence[ReleaseInput]
) -> Iterator[ReleaseScore]:
    serving = [one for one in releases if language in one.rows]
    first = serving[0].rows[language]
    for one in serving:
        rows = one.rows[language]
        found = score(metric, rows)
        yield {
            "language": language,
            "version": one.version,
            **estimate(found),
            "signature": found.signature,
            "drift": None if one is serving[0] else _since(metric, rows, first),
        }


def _since(metric: Metric, rows: Rows, first: Rows) -> Difference | None:
    """The paired difference on the common rows; None where there is none."""
    now, then = ({row["key"]: row for row in side} for side in (rows, first))
    truth = metric.truth
    keys = sorted(key for key in now.keys() & then.keys() if now[key][truth] == then[key][truth])
    if not keys:
        return None
    ours, theirs = [now[key] for key in keys], [then[key] for key in keys]
    observed, resampled = paired_differences(metric, ours, theirs, resamples=RESAMPLES)
    low, high = interval(resampled)
    return {"difference": observed, "low": low, "high": high, "n": len(keys)}
