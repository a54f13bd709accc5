"""Take over an adapter that was trained elsewhere, as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from koinize.adapter import ADAPTER_FILES, files_digest, open_adapter
from koinize.errors import StepError
from koinize.ledger.address import RELEASE
from koinize.pipeline.generation import folder_of
from koinize.pipeline.work import Job
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """Copies the two files of a PEFT folder; raises StepError where they changed meanwhile."""
    folder = folder_of(job.step, job.spec, job.root, job.home)
    for name in ADAPTER_FILES:
        shutil.copyfile(folder / name, draft.folder / name)
    found = files_digest(draft.folder)
    if found != job.step.inputs["adapter files"]:
        raise StepError("changed while it was read", where=str(folder), remedy="run again")
    ours = job.step.address.role == RELEASE
    return {"source": str(folder), "warnings": [] if ours else list(oddities(draft.folder))}


def oddities(folder: Path) -> Iterator[str]:
    """What is worth a word of an adapter that is sound."""
    with open_adapter(folder) as adapter:
        if not any(adapter.factors(module).bound for module in adapter.header.modules):
            yield "changes nothing: every update is zero, so it was never trained"
