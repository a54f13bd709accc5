"""What each kind of step does: runs in a worker, reads verified artifacts, commits its own.

A worker keeps the base model between steps; torch is imported only by the steps that need it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinize.digest import digest, file_digest
from koinize.errors import KoinizeError, StepError
from koinize.metrics import metrics
from koinize.model import base
from koinize.pipeline.graph import evaluation_of, labels_of
from koinize.pipeline.inputs import example_digest, examples_of
from koinize.pipeline.step import PARENT, Step
from koinize.pipeline.update import read_learnt, select, together, write_learnt
from koinize.spec import Spec
from koinize.store import Artifact, Draft, Home, Store
from koinize.tasks import Example

if TYPE_CHECKING:
    from koinize.model.loaded import Loaded

ROWS = "rows.jsonl"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
PROGRESS_SECONDS = 0.5
USES_MODEL = ("train", "evaluate")


@dataclass(frozen=True)
class Job:
    """One step with everything that a worker needs to do it. `home` is the .koinize folder."""

    step: Step
    spec: Spec
    root: Path
    home: Path
    threads: int

    @property
    def progress_file(self) -> Path:
        """Where the worker says how far it is, for whoever shows it."""
        return Home(self.home).progress / self.step.id

    @property
    def log_file(self) -> Path:
        """Where the traceback of an unexpected failure goes."""
        return Home(self.home).log(self.step.name)


def perform(job: Job) -> dict[str, Any]:
    """Do one step and commit its artifact; returns the artifact's facts.

    Raises KoinizeError with a message for people; the unexpected leaves its traceback in a log.
    """
    store = Store(job.home)
    started = time.perf_counter()
    step = job.step
    try:
        with store.building(step.id, step.name, step.identity) as draft:
            draft.facts.update(rows=dict(step.rows), units=step.units, tokens=0)
            draft.facts["settings"] = dict(step.settings)
            loading = _load_first(job) if step.kind in USES_MODEL else 0.0
            draft.facts.update(DOERS[step.kind](job, store, draft))
            draft.facts["load_seconds"] = round(loading, 3)
            draft.facts["seconds"] = round(time.perf_counter() - started - loading, 3)
            draft.facts["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return dict(draft.facts)
    except KoinizeError:
        raise
    except Exception as error:
        raise _failure(job, error) from error
    finally:
        with suppress(OSError):
            job.progress_file.unlink()


def _failure(job: Job, error: Exception) -> StepError:
    """What people are told of a failure that no step foresaw."""
    if said := _refused_by_system(error):
        return StepError(
            f"failed: {said}",
            where=job.step.name,
            remedy="make room or mend the permissions, then run again: finished steps are kept",
        )
    with suppress(OSError):
        job.log_file.parent.mkdir(parents=True, exist_ok=True)
        job.log_file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return StepError(
        f"failed unexpectedly: {type(error).__name__}: {error}",
        where=job.step.name,
        remedy=f"the details are in {job.log_file}",
    )


def _refused_by_system(error: Exception) -> str:
    """Why the system refused to read or write; empty when the error is another one.

    safetensors passes a full disk on as an exception of its own, with the system's number in it.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number[1])) if number else ""


def _prepare_base(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    _quiet()
    return {"path": str(base.prepare(job.spec.base, job.root, base.user_cache()))}


def _import_adapter(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    folder = job.root / job.spec.adapters[job.step.task][job.step.languages[0]]
    for name in ADAPTER_FILES:
        shutil.copyfile(folder / name, draft.folder / name)
    found = digest([file_digest(draft.folder / name) for name in ADAPTER_FILES])
    if found != job.step.inputs["adapter files"]:
        raise StepError("changed while it was read", where=str(folder), remedy="run again")
    return {"source": str(folder)}


def _train(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    from koinize.train import train

    step, training = job.step, job.spec.training
    examples = {one: _examples(job, one, "train") for one in step.languages}
    today = {one: [example_digest(row) for row in rows] for one, rows in examples.items()}
    parent = store.open(step.uses[PARENT]) if PARENT in step.uses else None
    learnt = read_learnt(parent) if parent else {}
    if parent:
        replay = training.update.replay
        selection = select(today, learnt, parent.id, training.seed, replay)
        examples = {one: selection.pick(one, rows) for one, rows in examples.items()}
    report = train(
        _loaded(job),
        [example for rows in examples.values() for example in rows],
        [example for one in step.languages for example in _examples(job, one, "dev")],
        job.spec.lora.of(step.languages[0] if len(step.languages) == 1 else ""),
        training.continued if parent else training,
        draft.folder,
        progress=_reporter(job),
        start=parent.folder if parent else None,
    )
    write_learnt(draft.folder, together(today, learnt))
    updates = parent.facts.get("updates", 0) + 1 if parent else 0
    return {**asdict(report), "updates": updates}


def _merge(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    from koinize.engine import merge_adapters

    adapters = {one: store.open(adapter).folder for one, adapter in job.step.uses.items()}
    built = draft.folder / "adapter"
    report = merge_adapters(
        adapters, job.step.merge, out=built, threads=job.threads, progress=_reporter(job)
    )
    for path in built.iterdir():
        path.rename(draft.folder / path.name)
    built.rmdir()
    return {
        "rank": report.rank,
        "truncation_error": report.error,
        "modules": {module.name: module.error for module in report.modules},
        "warnings": list(report.warnings),
        "vllm_flags": report.vllm_flags,
    }


def _evaluate(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    from koinize.evaluate import evaluate
    from koinize.model.loaded import with_adapter

    step = job.step
    task = job.spec.tasks[step.task]
    examples = _examples(job, step.languages[0], step.split)
    settings = evaluation_of(job.spec, task)
    with with_adapter(_loaded(job), _adapter(step, store)) as loaded:
        rows = evaluate(loaded, examples, task.mode, settings, progress=_reporter(job))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (draft.folder / ROWS).write_text(text, encoding="utf-8")
    return {}


def _adapter(step: Step, store: Store) -> Path | None:
    """The PEFT folder that an evaluation uses; None for the bare base model."""
    if "choice" in step.uses:
        return store.open(store.open(step.uses["choice"]).facts["adapter"]).folder
    return store.open(step.uses["adapter"]).folder if step.uses else None


def _select(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:  # noqa: ARG001
    """Choose the system with the highest mean over languages; the first listed wins a tie.

    Where there is one alone it has no scores, and is the choice.
    """
    task = job.spec.tasks[job.step.task]
    metric = metrics.get(task.metrics[0]).over(labels_of(task))
    adapters: dict[str, str] = {}
    scores: dict[str, list[float]] = {}
    for label, artifact_id in job.step.uses.items():
        system, _, what = label.rpartition("|")
        if what == "adapter":
            adapters[system] = artifact_id
            continue
        statistics = metric.statistics(read_result_rows(store.open(artifact_id)))
        scores.setdefault(system, []).append(float(metric.aggregate(statistics.sum(axis=0))))
    means = {system: sum(values) / len(values) for system, values in scores.items()}
    chosen = max(adapters, key=lambda system: means.get(system, 0.0))
    return {"chosen": chosen, "adapter": adapters[chosen], "metric": metric.name, "means": means}


DOERS: dict[str, Callable[[Job, Store, Draft], Mapping[str, Any]]] = {
    "base": _prepare_base,
    "import": _import_adapter,
    "train": _train,
    "merge": _merge,
    "evaluate": _evaluate,
    "select": _select,
}


def read_result_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """The per-example rows of an evaluation."""
    text = artifact.path(ROWS).read_text(encoding="utf-8")
    # Not splitlines(): a generated text may hold U+2028, which JSON leaves as it is.
    return [json.loads(line) for line in text.split("\n") if line]


def _load_first(job: Job) -> float:
    """Seconds that this worker took to import the libraries and load the model; 0 if it has it."""
    began, loads = time.perf_counter(), _load.cache_info().misses
    _loaded(job)
    return time.perf_counter() - began if _load.cache_info().misses > loads else 0.0


def _examples(job: Job, language: str, split: str) -> list[Example]:
    """The examples that the step's identity speaks of. Raises StepError for any others."""
    task = job.spec.tasks[job.step.task]
    expected = job.step.inputs.get(f"{split} rows {language}")
    return examples_of(task, job.root, language, split, expected)


def _loaded(job: Job) -> Loaded:
    _quiet()
    path = base.prepare(job.spec.base, job.root, base.user_cache())
    return _load(str(path), job.spec.base, job.threads)


@lru_cache(maxsize=1)
def _load(path: str, spec: base.BaseSpec, threads: int) -> Loaded:
    import torch

    from koinize.model.loaded import load_model

    torch.set_num_threads(threads)
    return load_model(path, spec.dtype, name=spec.model, revision=spec.revision)


def _quiet() -> None:
    """Keep the libraries' bars, and notes about their own future, off the user's screen."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TQDM_DISABLE"] = "1"  # read as tqdm is imported, so before transformers
    warnings.filterwarnings("ignore", category=FutureWarning)
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _reporter(job: Job) -> Callable[..., None]:
    """A callback that writes how far the step is, at most twice a second."""
    last = [0.0]
    job.progress_file.parent.mkdir(parents=True, exist_ok=True)

    def report(done: int, total: int, *_: object) -> None:
        now = time.monotonic()
        if now - last[0] >= PROGRESS_SECONDS:
            last[0] = now
            with suppress(OSError):  # on a full disk nobody sees how far it is, and work goes on
                job.progress_file.write_text(f"{done} {total}")

    return report
