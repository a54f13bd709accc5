"""Doing a step: runs in a worker, reads verified artifacts, commits its own.

What each kind does stands in `koinize.pipeline.kinds`; here is what all of them need. A worker
keeps the base model between steps; torch is imported only by the steps that need it.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, cast

from pydantic import ConfigDict
from typing_extensions import TypedDict

from koinize import machine
from koinize.errors import KoinizeError, StepError
from koinize.executors import WorkerEndedError
from koinize.metrics import JudgedMetric, metrics
from koinize.model import base
from koinize.model.manner import ENCODING
from koinize.pipeline import meters
from koinize.pipeline.inputs import examples_of
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.step import Step
from koinize.spec import Spec
from koinize.store import Artifact, Draft, Home, Store, temporary_folder
from koinize.store.durable import own_folder, write_briefly
from koinize.store.typed import typed_lines
from koinize.tasks import Example

if TYPE_CHECKING:
    from koinize.model.judge import Reader
    from koinize.model.loaded import Loaded

ROWS = "rows.jsonl"
PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One step with all that its worker needs; `interval`: what the ledger calls this attempt."""

    step: Step
    spec: Spec
    root: Path
    home: Path  # .koinize
    threads: int
    interval: str = ""
    elsewhere: bool = False  # the run is on another machine
    sharing: int = 1  # workers that have one GPU's memory among them

    @property
    def progress_file(self) -> Path:
        """Where the worker says how far it is, for whoever shows it."""
        return Home(self.home).progress / self.step.id

    @property
    def failure_file(self) -> Path:
        """Where it says that the step failed, while others that it does at once go on."""
        return self.progress_file.with_suffix(".failed")

    @property
    def log_file(self) -> Path:
        """Where the traceback of an unexpected failure goes."""
        return Home(self.home).log(self.step.name)


class Failure(TypedDict):
    """What is told of a step that failed while others, done at once with it, went on."""

    error: str
    seconds: NotRequired[float]  # its share


Fill = Callable[[Draft], Mapping[str, Any]]
"""Fills a step's artifact and returns its facts."""

Over = Callable[[Job, Fill | Exception, float], None]
"""Called when one of several steps is over, with what it made or what ended it, and its seconds."""


def perform(job: Job) -> dict[str, Any]:
    """Do one step and commit its artifact; returns the artifact's facts.

    Raises KoinizeError with a message for people; the unexpected leaves its traceback in a log.
    """
    store, started = Store(job.home, job.spec.store), time.perf_counter()
    kind = KINDS[job.step.kind]
    meters.begin(elsewhere=job.elsewhere)
    try:
        with _drafting(job, store) as draft:
            loading = _load_first(job) if kind.needs_model and not is_commanded(job) else 0.0
            draft.facts.update(kind.perform(job, store, draft))
            draft.facts["load_seconds"] = round(loading, 3)
            draft.facts["seconds"] = round(time.perf_counter() - started - loading, 3)
        return dict(draft.facts)
    except KoinizeError:
        raise
    except Exception as error:
        raise _failure(job, error) from error
    finally:
        with suppress(OSError):
            job.progress_file.unlink()


def is_commanded(job: Job) -> bool:
    """Whether a program of the user's own does it, which loads the base model by itself."""
    return job.step.kind == "train" and job.spec.training.is_commanded


def perform_together(jobs: Sequence[Job]) -> dict[str, Failure]:
    """Do several steps of one kind at once, and commit the artifact of each as soon as it is there.

    Returns what failed, by the step's id, and says it in the step's failure_file besides, since the
    others may go on for hours. Raises KoinizeError for what ends all of them.
    """
    store, failures = Store(jobs[0].home, jobs[0].spec.store), dict[str, Failure]()
    meters.begin(elsewhere=jobs[0].elsewhere)
    try:
        loading = [_load_first(jobs[0])]  # told with the first artifact

        def over(job: Job, outcome: Fill | Exception, seconds: float) -> None:
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                with _drafting(job, store) as draft:
                    draft.facts.update(outcome(draft))
                    draft.facts["load_seconds"] = round(sum(loading), 3)
                    draft.facts["seconds"] = round(seconds, 3)
                loading.clear()
            except Exception as error:  # noqa: BLE001 - it ends this step and none of the others
                failures[job.step.id] = _told(job, error, seconds)

        with temporary_folder(Home(jobs[0].home).temporary) as scratch:
            KINDS[jobs[0].step.kind].perform_together(jobs, store, scratch, over)
    except KoinizeError:
        raise
    except Exception as error:
        raise _failure(jobs[0], error) from error
    return failures


@contextmanager
def _drafting(job: Job, store: Store) -> Iterator[Draft]:
    """A step's artifact, with what is recorded of every one."""
    step = job.step
    with store.building(step.id, step.name, step.identity) as draft:
        draft.facts.update(rows=dict(step.rows), units=step.units, tokens=0)
        draft.facts["settings"] = dict(step.settings)
        yield draft
        if KINDS[step.kind].needs_model:
            _model_of(job)  # of files that were read meanwhile, if not before
        draft.facts.update(meters.facts(elsewhere=job.elsewhere))


def _told(job: Job, error: Exception, seconds: float) -> Failure:
    """What failed, at once for whoever looks into its file."""
    known = error if isinstance(error, KoinizeError) else _failure(job, error)
    failure = Failure(error=str(known), seconds=seconds)
    with suppress(OSError):  # on a full disk it is told in the end
        write_briefly(job.failure_file, json.dumps(failure))
    return failure


def _failure(job: Job, error: Exception) -> StepError:
    """What people are told of a failure that no step foresaw."""
    if said := _refused_by_system(error):
        return StepError(
            f"failed: {said}",
            where=job.step.name,
            remedy="make room or mend the permissions, then run again: finished steps are kept",
        )
    with suppress(OSError):
        own_folder(job.log_file.parent)
        write_briefly(job.log_file, "".join(traceback.format_exception(error)))
    return StepError(
        f"failed unexpectedly: {type(error).__name__}: {error}",
        where=job.step.name,
        remedy=f"the details are in {job.log_file}",
    )


def ended(job: Job, error: BaseException | None) -> str:
    """What people are told of a step whose worker process ended with it.

    A worker maps the files of the base model, and the system ends it (SIGBUS) when it reads what
    was cut off from one of them meanwhile.
    """
    what = f"{job.step.name} ended with its worker process: {error}"
    if not (isinstance(error, WorkerEndedError) and error.how == "SIGBUS"):
        return what
    cache = base.user_cache()
    try:
        cut = base.cut_off(job.spec.base, job.root, cache, Home(job.home).digests)
        if not cut:
            _base_of(job)
            return what
    except KoinizeError as why:
        return f"{what}: {why}"
    ours = cut.is_relative_to(cache)
    remedy = "remove its folder, which is made again" if ours else "restore it from a copy"
    said = StepError(f"{cut} was cut off while it was used", remedy=f"{remedy}, and run again")
    return f"{what}: {said}"


def _refused_by_system(error: Exception) -> str:
    """Why the system refused to read or write; empty when the error is another one.

    safetensors passes a full disk on as an exception of its own, with the system's number in it.
    """
    if isinstance(error, OSError):
        said = error.strerror or str(error)
        return f"{said}: {error.filename}" if error.filename else said
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number[1])) if number else ""


class ResultLine(TypedDict):
    """One row of an evaluation; what a metric reads besides is its own to look for."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    key: str
    prediction: str
    gold: NotRequired[str]
    reference: NotRequired[str]
    scores: NotRequired[list[float]]
    lengths: NotRequired[list[int]]
    labels: NotRequired[list[str]]


def read_result_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """The per-example rows of an evaluation. Raises KoinizeError for what are none."""
    return result_rows(artifact.path(ROWS))


def result_rows(path: Path) -> list[dict[str, Any]]:
    """The rows in a file of them. Raises KoinizeError that names the line and the field."""
    remedy = "restore the file from a copy, or remove what holds it, so that it is made again"
    return cast("list[dict[str, Any]]", typed_lines(ResultLine, path, remedy=remedy))


def _load_first(job: Job) -> float:
    """Seconds that this worker took to import the libraries and load the model; 0 if it has it."""
    load = judge if job.step.kind == "judge" else loaded
    began, held = time.perf_counter(), list(_held)
    load(job)
    return time.perf_counter() - began if list(_held) != held else 0.0


def examples(job: Job, language: str, split: str) -> list[Example]:
    """The examples that the step's identity speaks of. Raises StepError for any others."""
    task = job.spec.tasks[job.step.task]
    expected = job.step.inputs.get(f"{split} rows {language}")
    is_chat = "chat" in job.step.settings.get(ENCODING, {})
    return examples_of(task, job.root, language, split, expected, is_chat=is_chat)


def loaded(job: Job) -> Loaded:
    """The base model, loaded by whichever step of this worker needed it first."""
    machine.limit_kernels()
    quiet()
    path = base.prepare(job.spec.base, job.root, base.user_cache())
    written = job.spec.base.model_dump_json()  # has a hash
    in_4bit = job.step.kind == "train" and job.spec.training.load_in_4bit
    key = str(path), written, job.threads, _base_of(job), in_4bit
    found: Loaded = _hold(key, partial(_load, str(path), written, job.threads, in_4bit))
    if not found.writes and any(task.writes for task in job.spec.tasks.values()):
        raise StepError(  # in the first step that needs the model, and not after all trainings
            "the base model has no cache that is carried from one token to the next, so that it "
            "cannot write texts",
            where=job.spec.base.model,
            remedy="choose another base model; docs/families.md lists what was tried",
        )
    return found


def _base_of(job: Job) -> str:
    """What the base model is now. Raises StepError unless it is the one of the step's identity."""
    found = base.identity(job.spec.base, job.root, Home(job.home).digests)
    if found != job.step.inputs.get("base", found):
        raise StepError(
            "the base model changed while it was used",
            where=job.spec.base.model,
            remedy="run again: what stands on it is planned anew",
        )
    return found


_held: dict[tuple[object, ...], Any] = {}
"""The model that this worker has, under all that it depends on; one at most."""


def _hold(key: tuple[object, ...], load: Callable[[], Any]) -> Any:  # noqa: ANN401
    if key not in _held:
        _held.clear()  # first: two of them may be more than the memory holds
        gc.collect()
        _held[key] = load()
    return _held[key]


def _load(path: str, written: str, threads: int, in_4bit: bool) -> Loaded:
    import torch

    from koinize.model.loaded import load_model

    torch.set_num_threads(threads)
    spec = base.BaseSpec.model_validate_json(written)
    return load_model(
        path,
        spec.dtype,
        name=spec.model,
        revision=spec.revision,
        template=spec.template,
        in_4bit=in_4bit,
    )


def judge(job: Job) -> Reader:
    """The model of the step's metric, loaded by whichever step of this worker needed it first."""
    machine.limit_kernels()
    quiet()
    name = job.step.address.metric
    spec = job.spec.judges[name]
    path = base.prepare(spec, job.root, base.user_cache())
    asked = str(path), spec.model_dump_json(), name, job.threads
    found: Reader = _hold((*asked, _model_of(job)), partial(_load_judge, *asked))
    return found


def _load_judge(path: str, written: str, name: str, threads: int) -> Reader:
    import torch

    from koinize.model.judge import JudgeSpec, load_reader

    torch.set_num_threads(threads)
    metric = cast("JudgedMetric", metrics.get(name))
    return load_reader(Path(path), JudgeSpec.model_validate_json(written), metric.architecture)


def _model_of(job: Job) -> str:
    """The identity of the model that the step needs. Raises StepError where it changed."""
    return _judge_of(job) if job.step.kind == "judge" else _base_of(job)


def _judge_of(job: Job) -> str:
    name = job.step.address.metric
    metric, spec = cast("JudgedMetric", metrics.get(name)), job.spec.judges[name]
    found = metric.identity(spec, base.identity(spec, job.root, Home(job.home).digests))
    if found != job.step.inputs["judge"]:
        raise StepError(
            "the model that judges changed while it was used",
            where=f"judges.{name}",
            remedy="run again: what it judges is planned anew",
        )
    return found


def quiet() -> None:
    """Keep the libraries' bars, and notes about their own future, off the user's screen."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TQDM_DISABLE"] = "1"  # read as tqdm is imported, so before transformers
    warnings.filterwarnings("ignore", category=FutureWarning)
    # It warns that it lacks a kernel for scoring on a CPU, which nobody asks it for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils import logging as of_transformers

    of_transformers.disable_progress_bar()
    of_transformers.set_verbosity_error()


def reporter(*jobs: Job) -> Callable[..., None]:
    """A callback that writes how far the step is, at most twice a second; of several that are done
    at once, how far they are together.
    """
    last = [0.0]
    own_folder(jobs[0].progress_file.parent)

    def report(done: int, total: int, *_: object) -> None:
        now = time.monotonic()
        if now - last[0] >= PROGRESS_SECONDS:
            last[0] = now
            with suppress(OSError):  # on a full disk nobody sees how far it is, and work goes on
                for job in jobs:
                    write_briefly(job.progress_file, f"{done} {total}")

    return report
