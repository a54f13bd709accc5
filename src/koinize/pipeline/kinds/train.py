"""Train adapters: from the base, or on from one that is there; one alone, or several at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinize.errors import KoinizeError
from koinize.ledger.address import TRUNK
from koinize.model import base
from koinize.model.memory import decoder_in
from koinize.pipeline import work
from koinize.pipeline.generation import draw, read_anchors
from koinize.pipeline.lineage import read_learnt, select, together, write_learnt
from koinize.pipeline.memory import reckoned_tokens
from koinize.pipeline.seeds import further_of
from koinize.pipeline.step import NO_NUMBER
from koinize.pipeline.trainer import Order, trained
from koinize.pipeline.tries import may_fail, number_of
from koinize.pipeline.work import Job, Over
from koinize.settings import CPU_TOKENS
from koinize.store import Draft, Store
from koinize.tasks import Example

if TYPE_CHECKING:
    from koinize.model.loaded import Loaded
    from koinize.settings import LoraSpec, TrainingSpec
    from koinize.train import NoNumberError, Saving, Training, TrainingReport


@dataclass(frozen=True)
class _Asked:
    """What a step trains: on which rows, from where and how; and what is kept beside the adapter.

    `learnt` are the digests of the rows that it knows afterwards, `facts` what else is recorded.
    """

    rows: Sequence[Example]
    dev: Sequence[Example]
    settings: TrainingSpec
    start: Path | None
    learnt: Mapping[str, Sequence[str]]
    facts: Mapping[str, Any]

    def training(self, job: Job, store: Store, out: Path) -> Training:
        """The same for the trainer."""
        from koinize.train import Training

        how = self._seeded(job)
        rows, saving = (self.rows, self.dev), _saving(job, store)
        return Training(job.step.name, *rows, *how, out, self.start, saving)

    def _seeded(self, job: Job) -> tuple[LoraSpec, TrainingSpec]:
        """The settings with the seeds of the step."""
        lora = job.spec.lora.of("" if job.step.uses.trunk else job.step.language)
        which = number_of(job.step), further_of(job.step)
        return lora.of_try(*which), self.settings.of_try(*which)

    def by_command(self, job: Job, draft: Draft) -> Mapping[str, Any]:
        """The same by a program of the user's own; the facts."""
        folder = base.prepare(job.spec.base, job.root, base.user_cache())
        given = (self.rows, self.dev, *self._seeded(job), self.start)
        order = Order(job.step.name, folder.absolute(), *given, threads=job.threads)
        found = trained(order, job.spec, job.root, job.home, draft.folder)
        write_learnt(draft.folder, self.learnt)
        return {"examples": len(self.rows), **found, **self.facts}

    def keep(self, report: TrainingReport, folder: Path) -> Mapping[str, Any]:
        """Writes the rows beside the adapter; the facts."""
        write_learnt(folder, self.learnt)
        return {**asdict(report), **self.facts}

    def without_adapter(self, error: NoNumberError, job: Job) -> Mapping[str, Any]:
        """The facts of a try that ended without an adapter, while another one may have one."""
        return {
            **self.facts,
            NO_NUMBER: error.what,
            "steps": error.steps,
            "tokens": error.tokens,
            "units": round(job.step.units * error.steps / error.planned),
        }

    def move(self, report: TrainingReport, out: Path, draft: Draft) -> Mapping[str, Any]:
        """The same for an adapter that lies elsewhere."""
        for path in out.iterdir():
            path.rename(draft.folder / path.name)
        return self.keep(report, draft.folder)


def perform(job: Job, store: Store, draft: Draft) -> Mapping[str, Any]:
    """A PEFT folder, the rows that it was trained on, and what `TrainingReport` says."""
    asked = _asked(job, store)
    if work.is_commanded(job):
        return asked.by_command(job, draft)
    from koinize.train import NoNumberError, train

    loaded = work.loaded(job)
    (one,) = _sized([asked.training(job, store, draft.folder)], job, loaded)
    try:
        with _within(job, loaded):
            report = train(
                loaded,
                one.train_examples,
                one.dev_examples,
                one.lora,
                one.settings,
                one.out,
                progress=work.reporter(job),
                start=one.start,
                saving=one.saving,
            )
    except NoNumberError as error:
        if not may_fail(job.step, job.spec.training.retries, store):
            raise
        return asked.without_adapter(error, job)
    return asked.keep(report, draft.folder)


def perform_together(jobs: Sequence[Job], store: Store, scratch: Path, over: Over) -> None:
    """The same for several, whose rows share the forward passes: each over as soon as it ends."""
    from koinize.train import NoNumberError, train_together

    ready = list(_ready(jobs, store, over))
    loaded = work.loaded(jobs[0])
    wanted = [asked.training(job, store, scratch / job.step.id) for job, asked in ready]
    trainings = _sized(wanted, jobs[0], loaded)

    def ended(place: int, outcome: TrainingReport | KoinizeError, seconds: float) -> None:
        job, asked = ready[place]
        retries = job.spec.training.retries
        if isinstance(outcome, NoNumberError) and may_fail(job.step, retries, store):
            facts = asked.without_adapter(outcome, job)
            over(job, lambda _: facts, seconds)
        elif isinstance(outcome, KoinizeError):
            over(job, outcome, seconds)
        else:
            over(job, partial(asked.move, outcome, trainings[place].out), seconds)

    report = work.reporter(*jobs)
    with _within(jobs[0], loaded):
        train_together(loaded, trainings, progress=report, ended=ended)


def _sized(trainings: Sequence[Training], job: Job, loaded: Loaded) -> list[Training]:
    """The same where they share their passes; of batch_tokens: auto, on a GPU, a number."""
    from koinize.model.loaded import gpu_bytes

    memory = gpu_bytes(loaded.device)
    if memory is None or job.spec.training.batch_tokens != "auto":
        return list(trainings)
    decoder = decoder_in(base.prepare(job.spec.base, job.root, base.user_cache()))
    tokens = reckoned_tokens(job.spec, decoder, memory // job.sharing, len(trainings))
    own = {"batch_tokens": tokens or CPU_TOKENS}
    return [replace(one, settings=one.settings.model_copy(update=own)) for one in trainings]


def _within(job: Job, loaded: Loaded) -> AbstractContextManager[None]:
    """What the machine asks of a training."""
    from koinize.train.recompute import recomputing

    asked = job.spec.machine.gradient_checkpointing
    return recomputing(loaded.backbone) if asked else nullcontext()


def _ready(jobs: Sequence[Job], store: Store, over: Over) -> Iterator[tuple[Job, _Asked]]:
    """Those whose rows are what the plan saw."""
    for job in jobs:
        try:
            yield job, _asked(job, store)
        except (KoinizeError, OSError) as error:
            over(job, error, 0.0)


def _asked(job: Job, store: Store) -> _Asked:
    step, training = job.step, job.spec.training
    if step.uses.trunk:
        return _branch(job, store)
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
    return _Asked(
        rows=[example for some in rows.values() for example in some],
        dev=[example for one in step.languages for example in work.examples(job, one, "dev")],
        settings=training.continued if parent else training,
        start=parent.folder if parent else None,
        learnt=together(today, learnt),
        facts={"updates": parent.facts.get("updates", 0) + 1 if parent else 0},
    )


def _saving(job: Job, store: Store) -> Saving:
    """How far it is lies under the step's id until that is an artifact."""
    from koinize.train import Saving

    return Saving(
        store.checkpoint(job.step.id, job.step.name),
        job.spec.machine.checkpoint_seconds,
        interval=job.interval,
        units=job.step.units,
        began=store.opened,
    )


def _branch(job: Job, store: Store) -> _Asked:
    """Trained on from the trunk: on the language's own rows, and the anchors of the others."""
    step = job.step
    own = work.examples(job, step.language, "train")
    others = step.uses.anchors and read_anchors(store.open(step.uses.anchors), step.language)
    return _Asked(
        rows=[*own, *(others or [])],
        dev=work.examples(job, step.language, "dev"),
        settings=job.spec.training.branched,
        start=store.open(step.uses.trunk).folder,
        learnt={step.language: [row.digest for row in own]},
        facts={"anchors": len(others or [])},
    )
