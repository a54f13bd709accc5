"""Let one system answer one language's split; or several at once the same rows."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from koinize.digest import digest
from koinize.errors import KoinizeError
from koinize.pipeline import work
from koinize.pipeline.joining import in_turn
from koinize.pipeline.step import PART, Uses
from koinize.pipeline.work import ROWS, Fill, Job, Over
from koinize.search.order import balanced
from koinize.store import Draft, Store
from koinize.tasks import Example


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """One line of JSON for each example."""
    from koinize.evaluate import evaluate
    from koinize.model.loaded import with_adapter

    task = job.spec.tasks[job.step.task]
    asked = _asked(job)
    settings = task.evaluation(job.spec.evaluation, job.step.split)
    with with_adapter(work.loaded(job), adapter_of(job.step.uses, store)) as model:
        rows = evaluate(model, asked, task.mode, settings, progress=work.reporter(job))
    return _write(rows, draft)


def _asked(job: Job) -> list[Example]:
    """The rows of the split, or a part of them."""
    if (part := job.step.settings.get(PART)) is None:
        return work.examples(job, job.step.language, job.step.split)
    asked = _in_order(job)[job.step.language]
    return asked[part["first"] : part["last"]]


_ordered: dict[Hashable, Mapping[str, list[Example]]] = {}
"""What was asked for last, under all that it depends on."""


def _in_order(job: Job) -> Mapping[str, list[Example]]:
    """The rows by language, in the order in which parts of them are answered: by their digests, and
    where they have labels of one set so that every part has them in their shares.
    """
    step = job.step
    languages = step.settings[PART].get("balanced", [step.language])
    key = (
        job.root,
        step.task,
        step.split,
        *(step.inputs[f"{step.split} rows {one}"] for one in languages),
    )
    if key not in _ordered:
        asked = {
            one: sorted(
                work.examples(job, one, step.split),
                key=lambda row: digest([row.language, row.digest, row.key]),
            )
            for one in languages
        }
        if "balanced" in step.settings[PART]:
            gold = [[row.labels[row.gold] for row in rows] for rows in asked.values()]
            orders = dict(zip(asked, balanced(gold), strict=True))
            asked = {one: [rows[place] for place in orders[one]] for one, rows in asked.items()}
        _ordered.clear()
        _ordered[key] = asked
    return _ordered[key]


def perform_together(jobs: Sequence[Job], store: Store, _scratch: Path, over: Over) -> None:
    """The same for several languages and one system, in turn, or for several systems and the same
    rows, at once; of whose seconds each gets an equal part.
    """
    how = _in_turn if in_turn([job.step for job in jobs]) else _at_once
    how(jobs, store, over)


def _in_turn(jobs: Sequence[Job], store: Store, over: Over) -> None:
    """What does not depend on the rows, putting the adapter on above all, is done once, and is
    among the seconds of the first.
    """
    from koinize.evaluate import Priors, evaluate
    from koinize.model.loaded import with_adapter

    began, task = time.perf_counter(), jobs[0].spec.tasks[jobs[0].step.task]
    settings = task.evaluation(jobs[0].spec.evaluation, jobs[0].step.split)
    folder, priors = adapter_of(jobs[0].step.uses, store), Priors()
    found: list[tuple[Job, Fill | Exception, float]] = []
    with with_adapter(work.loaded(jobs[0]), folder) as model:
        for job in jobs:
            told = work.reporter(job)
            outcome: Fill | Exception
            try:
                rows = evaluate(model, _asked(job), task.mode, settings, told, priors=priors)
                outcome = partial(_write, rows)
            except Exception as error:  # noqa: BLE001 - it ends this language's step alone
                outcome = error
            found.append((job, outcome, time.perf_counter() - began))
            began = time.perf_counter()
    for each in found:  # now that the base is known to be as it was
        over(*each)


def _at_once(jobs: Sequence[Job], store: Store, over: Over) -> None:
    from koinize.evaluate.together import evaluate_together

    began, first = time.perf_counter(), jobs[0]
    task = first.spec.tasks[first.step.task]
    asked = _asked(first)
    settings = task.evaluation(first.spec.evaluation, first.step.split)
    ready = list(_ready(jobs, store, over))
    model, progress = work.loaded(first), work.reporter(*jobs)
    folders = [folder for _, folder in ready]
    found = evaluate_together(model, folders, asked, task.mode, settings, progress)
    seconds = time.perf_counter() - began
    for (job, _), rows in zip(ready, found, strict=True):
        over(job, partial(_write, rows), seconds / len(ready))


def _ready(jobs: Sequence[Job], store: Store, over: Over) -> Iterator[tuple[Job, Path | None]]:
    """Those whose adapters are whole, and where these lie."""
    for job in jobs:
        try:
            yield job, adapter_of(job.step.uses, store)
        except KoinizeError as error:
            over(job, error, 0.0)


def _write(rows: Sequence[Mapping[str, object]], draft: Draft) -> Mapping[str, Any]:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (draft.folder / ROWS).write_text(text, encoding="utf-8")
    return {}


def adapter_of(uses: Uses, store: Store) -> Path | None:
    """The PEFT folder that is scored; None for the bare base model."""
    if uses.choice:
        return store.open(store.open(uses.choice).facts["adapter"]).folder
    return store.open(uses.adapter).folder if uses.adapter else None
