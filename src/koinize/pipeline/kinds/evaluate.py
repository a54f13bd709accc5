"""Let one system answer one language's split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koinize.pipeline import work
from koinize.pipeline.step import Uses
from koinize.pipeline.work import ROWS, Job
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """One line of JSON for each example."""
    from koinize.evaluate import evaluate
    from koinize.model.loaded import with_adapter

    task = job.spec.tasks[job.step.task]
    asked = work.examples(job, job.step.language, job.step.split)
    settings = task.evaluation(job.spec.evaluation)
    with with_adapter(work.loaded(job), _adapter(job.step.uses, store)) as model:
        rows = evaluate(model, asked, task.mode, settings, progress=work.reporter(job))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (draft.folder / ROWS).write_text(text, encoding="utf-8")
    return {}


def _adapter(uses: Uses, store: Store) -> Path | None:
    """The PEFT folder that is scored; None for the bare base model."""
    if uses.choice:
        return store.open(store.open(uses.choice).facts["adapter"]).folder
    return store.open(uses.adapter).folder if uses.adapter else None
