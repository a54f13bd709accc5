"""Decide by the scores so far what a search looks at next, or what it has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from koinize.metrics import Metric, metrics
from koinize.pipeline.judging import rows_of
from koinize.pipeline.work import Job
from koinize.search.halving import ranked
from koinize.search.line import decide
from koinize.search.luck import chances
from koinize.search.proposals import Taken, Trial, over_budget, propose
from koinize.search.space import Space
from koinize.store import Draft, Store

SHOWN = 8


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """Of a candidate's scale: the scales to look at next, or the one that is found. Of a rung: who
    goes on. Of a round of exploring: what is looked at next, or why nothing more is.
    """
    task = job.spec.tasks[job.step.task]
    metric = metrics.get(task.metrics[0]).over(task.label_set)
    settings = job.step.settings
    if "rung" in settings:
        return _rung(job, store, metric)
    if "explore" in settings:
        return _proposals(job, store, metric)
    line = settings["line"]
    rows = _rows(job, store, line["scales"])
    return {"metric": metric.name, **asdict(decide(metric, task.label_set, line["stated"], rows))}


def _rung(job: Job, store: Store, metric: Metric) -> Mapping[str, Any]:
    labels, rung = job.spec.tasks[job.step.task].label_set, job.step.settings["rung"]
    rows = _rows(job, store, rung["candidates"])
    tempered = rung.get("tempered", False)
    standings = ranked(metric, labels, rows, rung["share"], tempered=tempered)
    best = [one.candidate for one in standings[:SHOWN]]
    return {
        "metric": metric.name,
        "kept": [one.candidate for one in standings[: rung["keep"]]],
        "standings": [asdict(one) for one in standings],
        "answered": sum(map(len, rows[best[0]].values())),
        "best_in": chances(metric, {one: rows[one] for one in best}),
    }


def _proposals(job: Job, store: Store, metric: Metric) -> Mapping[str, Any]:
    labels, asked = job.spec.tasks[job.step.task].label_set, job.step.settings["explore"]
    space = Space.model_validate(asked["space"])
    rows = _rows(job, store, asked["candidates"])
    standings = ranked(metric, labels, rows, asked["share"], tempered=True)
    places = {one.candidate: place for place, one in enumerate(standings)}
    trials = [Trial(point, places[one]) for one, point in asked["points"].items() if one in places]
    taken = _taken(job, store, len(places))
    per_hour = float(job.spec.price.dearest.per_hour) if job.spec.price else 0.0
    ended = over_budget(space, taken, len(asked["known"]), asked["count"], asked["share"], per_hour)
    points = list[dict[str, Any]]()
    if not ended:
        languages = tuple(asked["languages"])
        points = propose(space, languages, trials, asked["count"], asked["known"])
        if len(points) < asked["count"]:
            ended = "the space has no others"
    return {"metric": metric.name, "points": points, "ended": ended, "hours": taken.hours}


def _taken(job: Job, store: Store, candidates: int) -> Taken:
    """What the merges and scores so far took, by what their artifacts say."""
    read = [store.open(one) for one in job.step.uses.scores.values()]
    judged = [store.open(one.inputs["answers"]) for one in read if "answers" in one.inputs]
    scores = [*read, *judged]
    merges = {one.inputs["adapter"] for one in scores if "adapter" in one.inputs}
    merging = sum(float(store.open(one).facts["seconds"]) for one in merges)
    return Taken(candidates, merging, sum(float(one.facts["seconds"]) for one in scores))


def _rows(job: Job, store: Store, names: Mapping[str, Any]) -> dict[Any, dict[str, list[Any]]]:
    """The result rows by what its system stands for and language, its parts one after another;
    none of who was asked nothing, for a share of few rows is none.
    """
    rows: dict[Any, dict[str, list[Any]]] = {one: {} for one in names.values()}
    for (system, language), evaluation in job.step.uses.scores.items():
        own = rows.setdefault(names[system.title], {}).setdefault(language, [])
        own += rows_of(store, evaluation)
    return rows
