"""Choose among merges by their scores on dev."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koinize.metrics import Metric, metrics
from koinize.pipeline.across import stated_margin, task_of
from koinize.pipeline.judging import rows_of
from koinize.pipeline.work import Job
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """The system with the highest mean over languages; the first listed wins a tie.

    Of tasks that share an adapter, that mean of each in its margin, added up: what a language of
    one may lose counts as much as what one of another may. Where a system is alone it has no
    scores, and is the choice.
    """
    uses = job.step.uses
    scores: dict[str, dict[str, list[float]]] = {}
    for (system, part), evaluation in uses.scores.items():
        task = task_of(part) or job.step.task
        metric = _metric(job, task)
        statistics = metric.statistics(rows_of(store, evaluation))
        score = float(metric.aggregate(statistics.sum(axis=0)))
        scores.setdefault(system.title, {}).setdefault(task, []).append(score)
    means = {title: _together(job, found) for title, found in scores.items()}
    chosen = max(uses.candidates, key=lambda system: means.get(system.title, 0.0))
    return {
        "chosen": chosen.title,
        "system": chosen.key,
        "adapter": uses.candidates[chosen],
        "metric": _metric(job, job.step.task).name,
        "means": means,
    }


def _metric(job: Job, task: str) -> Metric:
    definition = job.spec.tasks[task]
    return metrics.get(definition.metrics[0]).over(definition.label_set)


def _together(job: Job, scores: Mapping[str, Sequence[float]]) -> float:
    """The mean over languages; of several tasks, the sum of those means in margins."""
    means = {task: sum(some) / len(some) for task, some in scores.items()}
    if len(means) == 1:
        return next(iter(means.values()))
    margins = {task: stated_margin(job.spec, task) or _metric(job, task).margin for task in means}
    return sum(means[task] / margins[task] for task in means)
