"""Let a metric's model judge the answers of one evaluation, or the references of dev."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

from koinize.metrics import CalibratedMetric, JudgedMetric
from koinize.pipeline import work
from koinize.pipeline.judging import asked, rows_of
from koinize.pipeline.work import ROWS, Job
from koinize.store import Artifact, Draft, Store

logger = logging.getLogger(__name__)


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """One line of JSON for each row: its key, its score, and by which judge. Of references, the
    facts have the threshold that they set.
    """
    name, uses = job.step.address.metric, job.step.uses
    judge = uses.references or job.step.inputs["judge"]
    metric, reader = asked(job.spec, job.step.task)[name], work.judge(job)
    spec, report = job.spec.judges[name], work.reporter(job)
    rows = list(_rows(job, store))
    decide = partial(_decided, metric, store.open(uses.references)) if uses.references else float
    cut, scores, lines = reader.cut, list[float](), list[str]()
    for row, found in zip(rows, metric.judged(reader, spec, rows), strict=True):
        scores.append(decide(found))
        line = {"key": row["key"], "judge": judge, "score": scores[-1]}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        report(len(lines), len(rows))
    (draft.folder / ROWS).write_text("".join(lines), encoding="utf-8")
    if cut := reader.cut - cut:
        logger.warning(
            "%s: %d texts fill the %d tokens that the model reads at once; what goes beyond was "
            "not judged",
            job.step.name,
            cut,
            reader.room,
        )
    facts = {"metric": name, "cut": cut}
    if uses.answers:
        return facts
    return {**facts, "threshold": cast("CalibratedMetric", metric).threshold(spec, scores)}


def _decided(metric: JudgedMetric, references: Artifact, found: float) -> float:
    return cast("CalibratedMetric", metric).passed(found, references.facts["threshold"])


def _rows(job: Job, store: Store) -> Iterator[dict[str, Any]]:
    """The rows that are judged: answers, or references as if they were answers; of the prompt what
    was asked, without the template around it.
    """
    task, language, answers = (
        job.spec.tasks[job.step.task],
        job.step.language,
        job.step.uses.answers,
    )
    if answers:
        rows = rows_of(store, answers)
    else:
        rows = [
            {"key": one.key, "language": language, "prompt": one.prompt}
            | {"reference": one.target, "prediction": one.target.strip()}
            for one in work.examples(job, language, "dev")
        ]
    for row in rows:
        yield row | ({"prompt": task.bare(row["prompt"], language)} if "prompt" in row else {})
