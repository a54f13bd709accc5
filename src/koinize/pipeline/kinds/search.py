"""Decide by the scores so far what a search looks at next, or what it has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from koinize.metrics import Metric, metrics
from koinize.pipeline.work import Job, read_result_rows
from koinize.search.halving import ranked
from koinize.search.line import decide
from koinize.search.luck import chances
from koinize.store import Draft, Store

SHOWN = 8


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """Of a candidate's scale: the scales to look at next, or the one that is found. Of a rung: who
    goes on.
    """
    task = job.spec.tasks[job.step.task]
    metric = metrics.get(task.metrics[0]).over(task.label_set)
    settings = job.step.settings
    if "rung" in settings:
        return _rung(job, store, metric)
    line = settings["line"]
    rows = _rows(job, store, line["scales"])
    return {"metric": metric.name, **asdict(decide(metric, task.label_set, line["stated"], rows))}


def _rung(job: Job, store: Store, metric: Metric) -> Mapping[str, Any]:
    labels, rung = job.spec.tasks[job.step.task].label_set, job.step.settings["rung"]
    rows = _rows(job, store, rung["candidates"])
    standings = ranked(metric, labels, rows, rung["share"])
    best = [one.candidate for one in standings[:SHOWN]]
    return {
        "metric": metric.name,
        "kept": [one.candidate for one in standings[: rung["keep"]]],
        "standings": [asdict(one) for one in standings],
        "answered": sum(map(len, rows[best[0]].values())),
        "best_in": chances(metric, {one: rows[one] for one in best}),
    }


def _rows(job: Job, store: Store, names: Mapping[str, Any]) -> dict[Any, dict[str, list[Any]]]:
    """The result rows by what its system stands for and language, its parts one after another."""
    rows: dict[Any, dict[str, list[Any]]] = {}
    for (system, language), evaluation in job.step.uses.scores.items():
        own = rows.setdefault(names[system.title], {}).setdefault(language, [])
        own += read_result_rows(store.open(evaluation))
    return rows
