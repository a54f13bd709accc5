"""One project folder: its specification, its .koinize home, and what `plan` and `run` do there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from koinize.adapter import files_digest, read_header
from koinize.adapter.names import quantized_copy
from koinize.errors import BrokenError, InputError
from koinize.executors import Place
from koinize.ledger import Interval, Ledger
from koinize.model import base, quantized
from koinize.model.families import refuse_family
from koinize.model.manner import PLAIN, Manner, check_folder, manner, template_of
from koinize.model.rows import fitted
from koinize.pipeline.dry_run import refuse_unfit
from koinize.pipeline.experience import Experience, recall
from koinize.pipeline.generation import Elsewhere, elsewhere, require_own_trunk, trunk_folder
from koinize.pipeline.graph import graph
from koinize.pipeline.inputs import Inputs, survey
from koinize.pipeline.judging import Judging, fetch, identities, rows_of
from koinize.pipeline.lengths import Lengths, Use, measure, refuse
from koinize.pipeline.lineage import History
from koinize.pipeline.memory import HERE, needed, passes_here
from koinize.pipeline.nodes import average, executor_of, greeting, pricing
from koinize.pipeline.overrides import refuse_contradictions
from koinize.pipeline.plan import Missing, Plan, plan
from koinize.pipeline.run import Outcome, Watcher, clear, locked, run
from koinize.pipeline.step import Step
from koinize.pipeline.trainer import require_program
from koinize.search.proposals import require_optuna
from koinize.settings import TrunkFrom
from koinize.spec import Spec, load
from koinize.store import Home, Store
from koinize.store.home import FOLDER

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Project:
    """A koinize.yaml and the folder around it; paths in it are relative to that folder."""

    file: Path
    spec: Spec
    retrain_comb: bool = False
    new_generation: bool = False
    choose_again: bool = False

    @classmethod
    def at(
        cls,
        file: Path,
        *,
        retrain_comb: bool = False,
        new_generation: bool = False,
        choose_again: bool = False,
    ) -> Project:
        """The project of this koinize.yaml. Raises InputError for every mistake in it."""
        project = cls(file, load(file), retrain_comb, new_generation, choose_again)
        if new_generation:
            require_own_trunk(project.spec, "a new generation")
        project.files.refuse_links()
        return project

    @property
    def root(self) -> Path:
        """The folder that holds koinize.yaml."""
        return self.file.parent

    @property
    def home(self) -> Path:
        """Where artifacts, ledger and memory are kept."""
        return self.root / FOLDER

    @property
    def files(self) -> Home:
        """Which of them lies where."""
        return Home(self.home)

    @property
    def store(self) -> Store:
        """The project's artifacts."""
        return Store(self.home, self.spec.store)

    @cached_property
    def inputs(self) -> Inputs:
        """The data as they are now, checked."""
        if self._base_here:
            check_folder(self.spec.base.template, self._base_here)
        return survey(self.spec, self.root, self.files.inputs, self.manner)

    @cached_property
    def manner(self) -> Manner:
        """How the base model is given texts; plainly, as long as nobody can know better."""
        return manner(self._base_here) if self._base_here else PLAIN

    @property
    def template(self) -> str:
        """The chat template that the base model is asked by; empty for plain text, and while
        nobody can know.
        """
        return template_of(self._base_here) if self._base_here else ""

    @cached_property
    def _base_here(self) -> Path | None:
        """The base model's folder; None while it has to be downloaded or converted first."""
        return base.prepared(self.spec.base, self.root, base.user_cache(), self.files.digests)

    @cached_property
    def steps(self) -> list[Step]:
        """Every step of the project, whether or not it was done."""
        for settings in self.spec.merge.settings:
            refuse_contradictions(settings, self._base_here)
        identity = base.identity(self.spec.base, self.root, self.files.digests)
        texts = any(task.writes for task in self.spec.tasks.values())
        refuse_family(self.spec.base.model, self._base_here, texts=texts)
        history = History(
            self.spec,
            self.inputs,
            self.root,
            self.store,
            retrain_comb=self.retrain_comb,
            new_generation=self.new_generation,
            choose_again=self.choose_again,
        )
        imported, trunks = dict(self._imported()), dict(self._trunks())
        judges = self.judging.judges
        return graph(self.spec, self.inputs, identity, imported, history, trunks, judges)

    @cached_property
    def judging(self) -> Judging:
        """The judges of the metrics that need a model. Raises InputError for one that cannot."""
        judges = identities(self.spec, self.root, self.files.digests)
        return Judging(self.spec, self.inputs, judges)

    def rows(self, evaluation: Step) -> list[dict[str, Any]]:
        """The result rows of an evaluation, as it was judged."""
        judged = [one.id for one in self.judging.steps(evaluation) if one.uses.answers]
        return rows_of(self.store, evaluation.id, judged)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where steps would be done, one for each worker. Raises InputError where none could be."""
        with greeting(self.spec, self.home) as greets:
            return executor_of(self.spec).ask(greets)

    def intervals(self) -> list[Interval]:
        """The ledger. Raises KoinizeError when a line of it was changed."""
        return Ledger(self.files.ledger).intervals()

    def experience(self) -> Experience:
        """What the ledger teaches about time. Raises KoinizeError when a line was changed."""
        return recall(Ledger(self.files.ledger), self.files.experience)

    def plan(
        self, broken: Mapping[str, str] | None = None, asked: Sequence[Step] | None = None
    ) -> Plan:
        """What is missing, why, and what it will cost: of the project's steps, or of those `asked`.

        `broken` maps the ids of artifacts that were just removed to what was wrong with them.
        Raises InputError where something is to be trained that could not be merged or scored, and
        for rows that the missing steps need and the base model cannot be given.
        """
        steps = self.steps if asked is None else asked
        workers, known = len(self.places), self.experience()
        devices = tuple({one.node: one.device for one in self.places}.values())
        price = average(list(map(pricing(self.spec), devices)))
        todo = plan(steps, self.store, known, workers, price, broken, devices)
        trains = any(one.step.kind == "train" for one in todo.missing)
        if trains:
            require_program(self.spec, self.root)
            if self.spec.training.load_in_4bit and self.spec.machine.executor in HERE:
                quantized.require()
        explores = any("explore" in one.step.settings for one in todo.missing)
        if explores:
            require_optuna()
        if self._base_here and (trains or explores):
            cache = base.user_cache()
            refuse_unfit(self.spec, steps, self.root, self.home, self._base_here, cache)
        missing = [one.step for one in todo.missing]
        passes = passes_here(self.spec, missing, self._base_here, workers)
        memory = needed(self.spec, missing, self.inputs, self._base_here, workers, passes)
        return replace(todo, lengths=self._lengths(todo), memory=memory, passes=passes)

    def _lengths(self, todo: Plan) -> Mapping[Use, Lengths] | None:
        """What the missing steps will find of their rows; None until the base model is here."""
        if self._base_here is None:
            return None
        encode = partial(fitted, self._base_here, self.spec.base.template)
        steps = [one.step for one in todo.missing]
        memory = self.files.lengths
        found = measure(self.spec, self.root, self.inputs, steps, memory, encode)
        refuse(found)
        return found

    def run(
        self,
        watcher: Watcher,
        approve: Callable[[Plan], None],
        asked: Sequence[Step] | None = None,
    ) -> tuple[Plan, Outcome]:
        """Do what is missing, holding the project's lock; `approve` may raise to refuse it."""
        with locked(self.home):
            self.store.settle()
            return self.do(watcher, approve, asked)

    def do(
        self,
        watcher: Watcher,
        approve: Callable[[Plan], None],
        asked: Sequence[Step] | None = None,
    ) -> tuple[Plan, Outcome]:
        """The same for who holds the lock."""
        clear(self.store)  # of what a run left that was killed, if only after its last step
        todo = self._sound_plan(asked)
        approve(todo)
        if todo.memory and todo.memory.warning:
            logger.warning(todo.memory.warning)
        watcher.planned(todo)
        outcome = Outcome()
        if todo.missing or self.experience().unfinished:
            outcome = self._work(todo, watcher, asked)
            self.experience()  # read the ledger now, so that the next plan need not
        present = self.store.ids()
        steps = self.steps if asked is None else asked
        self.store.point({step.name: step.id for step in steps if step.id in present})
        return todo, outcome

    def _work(self, todo: Plan, watcher: Watcher, asked: Sequence[Step] | None) -> Outcome:
        """Do what is missing; the base model first where nobody has looked at it yet.

        What is trained and scored is identified by how the base model is given texts, too.
        """
        missing, brought = todo.missing, Outcome()
        if missing and self._base_here is None and asked is None:
            first = [one for one in missing if one.step.kind == "base"]
            if first:
                brought = run(first, self.spec, self.root, self.home, watcher)
            else:
                base.prepare(self.spec.base, self.root, base.user_cache())
            if brought.failed:
                brought.skipped = [one.step.name for one in missing if one not in first]
                return brought
            for found in ("_base_here", "manner", "inputs", "judging", "steps"):
                self.__dict__.pop(found, None)
            todo = self._sound_plan(asked)
            missing = todo.missing
        if any(one.step.kind == "judge" for one in missing):
            fetch(self.spec, self.root)
        more = partial(self._unfolded, watcher)
        outcome = run(missing, self.spec, self.root, self.home, watcher, more, todo.load)
        outcome.done[:0] = brought.done
        return outcome

    def _unfolded(self, watcher: Watcher) -> Sequence[Missing]:
        """What is missing now that the searches have come further."""
        self.__dict__.pop("steps", None)
        todo = self.plan()
        watcher.planned(todo)
        return todo.missing

    def _sound_plan(self, asked: Sequence[Step] | None) -> Plan:
        """The plan, once all that the missing steps and the report will read is known to be whole.

        A broken artifact is removed, which is said, and its step is then among the missing. While
        nothing is missing nothing is read: finding what broke since is the doctor's work.
        """
        store, broken = self.store, dict[str, str]()
        while True:
            try:
                todo = self.plan(broken, asked)
                if todo.missing:
                    _verify(store, self.steps if asked is None else asked)
                return todo
            except BrokenError as error:
                logger.warning("%s; it is removed, and made again where it is needed", error.what)
                store.lose(error.artifact)
                broken[error.artifact] = error.what
                self.__dict__.pop("steps", None)  # what was trained before decides on them

    def _imported(self) -> Iterator[tuple[tuple[str, str], str]]:
        """The digests of the adapters that were trained elsewhere, their headers checked."""
        for task, folders in self.spec.adapters.items():
            for language, path in folders.items():
                folder = self.root / path
                self._check_base(folder)
                yield (task, language), files_digest(folder)

    def _trunks(self) -> Iterator[tuple[str, Elsewhere]]:
        """The trunks that nobody trains here, by task, their headers checked."""
        trunk = self.spec.training.trunk
        for task in self.spec.tasks if isinstance(trunk, TrunkFrom) else ():
            folder = trunk_folder(trunk, task, self.root, self.home)
            self._check_base(folder)
            yield task, elsewhere(folder, self.spec.lora.of(""))

    def _check_base(self, folder: Path) -> None:
        header = read_header(folder)
        expected = self.spec.base.model
        if header.base_model != expected:
            raise InputError(
                f"was trained on '{header.base_model}'",
                where=str(folder),
                expected=f"an adapter of '{expected}', the project's base model",
                remedy=quantized_copy(header.base_model, expected)
                or "name that base in koinize.yaml, or train the adapter again",
            )
        stated = self.spec.base.revision
        if stated and header.revision and header.revision != stated:  # null states nothing
            raise InputError(
                f"was trained on '{expected}' at {header.revision}",
                where=str(folder),
                expected=f"an adapter of revision {stated}, which koinize.yaml names",
                remedy="name that revision in koinize.yaml, or train the adapter again",
            )


def _verify(store: Store, steps: Sequence[Step]) -> None:
    """Raise BrokenError for the first broken artifact of these steps or among their parents.

    The same store may be asked again: what it has verified it does not read twice.
    """
    read = {one for step in steps for one in (step.id, *step.uses.ids())}
    for artifact in sorted(read & store.ids()):
        store.open(artifact)
