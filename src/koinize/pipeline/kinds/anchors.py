"""Draw the rows of every language that the branches of a trunk will see, and keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koinize.pipeline import work
from koinize.pipeline.generation import draw, write_anchors
from koinize.pipeline.work import Job
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """A share of each language's training rows, never of dev or test."""
    training = job.spec.training
    drawn = [
        one
        for language in job.step.languages
        for one in draw(
            work.examples(job, language, "train"), training.branch.anchors, training.seed
        )
    ]
    write_anchors(draft.folder, drawn)
    counts = {one: sum(row.language == one for row in drawn) for one in job.step.languages}
    return {"drawn": counts, "bytes": sum(one.bytes for one in drawn)}
