"""Decide by the scores so far what a search looks at next, or what it has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from koinize.metrics import metrics
from koinize.pipeline.work import Job, read_result_rows
from koinize.search.line import decide
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """Of a candidate's scale: the scales to look at next, or the one that is found."""
    task, uses, line = job.spec.tasks[job.step.task], job.step.uses, job.step.settings["line"]
    metric = metrics.get(task.metrics[0]).over(task.label_set)
    rows: dict[float, dict[str, list[dict[str, Any]]]] = {}
    for (system, language), evaluation in uses.scores.items():
        scale = line["scales"][system.title]
        rows.setdefault(scale, {})[language] = read_result_rows(store.open(evaluation))
    return {"metric": metric.name, **asdict(decide(metric, task.label_set, line["stated"], rows))}
