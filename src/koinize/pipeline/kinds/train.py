"""Train one adapter: from the base, or on from one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from koinize.ledger.address import TRUNK
from koinize.pipeline import work
from koinize.pipeline.generation import draw, read_anchors
from koinize.pipeline.lineage import read_learnt, select, together, write_learnt
from koinize.pipeline.work import Job
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """A PEFT folder, the rows that it was trained on, and what `TrainingReport` says."""
    from koinize.train import train

    step, training = job.step, job.spec.training
    if step.uses.trunk:
        return _branch(job, store, draft)
    rows = {one: work.examples(job, one, "train") for one in step.languages}
    if step.address.role == TRUNK and isinstance(training.trunk, float):
        rows = {one: draw(some, training.trunk, training.seed) for one, some in rows.items()}
    today = {one: [row.digest for row in some] for one, some in rows.items()}
    parent = store.open(step.uses.parent) if step.uses.parent else None
    learnt = read_learnt(parent) if parent else {}
    if parent:
        replay = training.update.replay
        selection = select(today, learnt, parent.id, training.seed, replay)
        rows = {one: selection.pick(one, some) for one, some in rows.items()}
    report = train(
        work.loaded(job),
        [example for some in rows.values() for example in some],
        [example for one in step.languages for example in work.examples(job, one, "dev")],
        job.spec.lora.of(step.language),
        training.continued if parent else training,
        draft.folder,
        progress=work.reporter(job),
        start=parent.folder if parent else None,
    )
    write_learnt(draft.folder, together(today, learnt))
    updates = parent.facts.get("updates", 0) + 1 if parent else 0
    return {**asdict(report), "updates": updates}


def _branch(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """Trained on from the trunk: on the language's own rows, and the anchors of the others."""
    from koinize.train import train

    step, training = job.step, job.spec.training
    own = work.examples(job, step.language, "train")
    others = step.uses.anchors and read_anchors(store.open(step.uses.anchors), step.language)
    report = train(
        work.loaded(job),
        [*own, *(others or [])],
        work.examples(job, step.language, "dev"),
        job.spec.lora.of(""),
        training.branched,
        draft.folder,
        progress=work.reporter(job),
        start=store.open(step.uses.trunk).folder,
    )
    write_learnt(draft.folder, {step.language: [row.digest for row in own]})
    return {**asdict(report), "anchors": len(others or [])}
