"""Choose among merges by their scores on dev."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koinize.metrics import metrics
from koinize.pipeline.work import Job, read_result_rows
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """The system with the highest mean over languages; the first listed wins a tie.

    Where there is one alone it has no scores, and is the choice.
    """
    task, uses = job.spec.tasks[job.step.task], job.step.uses
    metric = metrics.get(task.metrics[0]).over(task.label_set)
    scores: dict[str, list[float]] = {}
    for (system, _), evaluation in uses.scores.items():
        statistics = metric.statistics(read_result_rows(store.open(evaluation)))
        score = float(metric.aggregate(statistics.sum(axis=0)))
        scores.setdefault(system.title, []).append(score)
    means = {title: sum(values) / len(values) for title, values in scores.items()}
    chosen = max(uses.candidates, key=lambda system: means.get(system.title, 0.0))
    return {
        "chosen": chosen.title,
        "system": chosen.key,
        "adapter": uses.candidates[chosen],
        "metric": metric.name,
        "means": means,
    }
