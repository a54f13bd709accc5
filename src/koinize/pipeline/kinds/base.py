"""Make the base model loadable, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koinize.model import base
from koinize.pipeline import work
from koinize.pipeline.work import Job
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """The folder that it is loaded from."""
    work.quiet()
    return {"path": str(base.prepare(job.spec.base, job.root, base.user_cache()))}
