"""Take over an adapter that was trained elsewhere, as it is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from koinize.digest import digest, file_digest
from koinize.errors import StepError
from koinize.pipeline.work import ADAPTER_FILES, Job
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """Copies the two files of a PEFT folder; raises StepError where they changed meanwhile."""
    folder = job.root / job.spec.adapters[job.step.task][job.step.language]
    for name in ADAPTER_FILES:
        shutil.copyfile(folder / name, draft.folder / name)
    found = digest([file_digest(draft.folder / name) for name in ADAPTER_FILES])
    if found != job.step.inputs["adapter files"]:
        raise StepError("changed while it was read", where=str(folder), remedy="run again")
    return {"source": str(folder)}
