"""Merge adapters into one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koinize.pipeline import work
from koinize.pipeline.across import language_of
from koinize.pipeline.work import Job
from koinize.store import Draft, Store


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """A PEFT folder, and what reaching its rank lost."""
    from koinize.engine import merge_adapters

    uses = job.step.uses
    if uses.adapter:
        return _another_scale(job, store, draft)
    adapters = {one: store.open(found).folder for one, found in uses.adapters.items()}
    trunk = store.open(uses.trunk).folder if uses.trunk else None
    built = draft.folder / "adapter"
    report = merge_adapters(
        adapters,
        job.step.merge,
        out=built,
        threads=job.threads,
        progress=work.reporter(job),
        trunk=trunk,
        card={"language": sorted({language_of(one) for one in adapters})},
    )
    for path in built.iterdir():
        path.rename(draft.folder / path.name)
    built.rmdir()
    return {
        "rank": report.rank,
        "truncation_error": report.error,
        "modules": {module.name: module.error for module in report.modules},
        "warnings": list(report.warnings),
        "odd adapters": list(report.odd_adapters),
        "vllm_flags": report.vllm_flags,
    }


def _another_scale(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """A merge that is there, at another scale: what its rank lost is the same share of it."""
    from koinize.engine.rescale import rescale_adapter

    made = store.open(job.step.uses.adapter)
    rescale_adapter(made.folder, job.step.settings["multiple"]["of"], draft.folder)
    return {name: made.facts[name] for name in ("rank", "truncation_error")}
