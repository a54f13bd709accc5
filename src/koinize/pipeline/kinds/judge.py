"""Let a metric's model judge the answers of one evaluation."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from koinize.pipeline import work
from koinize.pipeline.judging import asked, rows_of
from koinize.pipeline.work import ROWS, Job
from koinize.store import Draft, Store

logger = logging.getLogger(__name__)


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """One line of JSON for each row: its key, its score, and by which judge."""
    name, judge = job.step.address.metric, job.step.inputs["judge"]
    metric, reader = asked(job.spec, job.step.task)[name], work.judge(job)
    rows, report = rows_of(store, job.step.uses.answers), work.reporter(job)
    cut, lines = reader.cut, []
    for row, score in zip(rows, metric.judged(reader, job.spec.judges[name], rows), strict=True):
        lines.append({"key": row["key"], "judge": judge, "score": score})
        report(len(lines), len(rows))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (draft.folder / ROWS).write_text(text, encoding="utf-8")
    if cut := reader.cut - cut:
        logger.warning(
            "%s: %d texts fill the %d tokens that the model reads at once; what goes beyond was "
            "not judged",
            job.step.name,
            cut,
            reader.room,
        )
    return {"metric": name, "cut": cut}
