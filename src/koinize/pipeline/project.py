"""One project folder: its specification, its .koinize home, and what `plan` and `run` do there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from koinize import base, machine
from koinize.adapter import read_header
from koinize.digest import digest, file_digest
from koinize.errors import InputError
from koinize.ledger import Interval, Ledger
from koinize.pipeline.experience import Experience, recall
from koinize.pipeline.graph import graph
from koinize.pipeline.inputs import Inputs, survey
from koinize.pipeline.plan import Plan, plan
from koinize.pipeline.run import Outcome, Watcher, locked, run
from koinize.pipeline.step import Step
from koinize.pipeline.update import History
from koinize.spec import Spec, load
from koinize.store import Store

HOME = ".koinize"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Project:
    """A koinize.yaml and the folder around it; paths in it are relative to that folder."""

    file: Path
    spec: Spec
    retrain_comb: bool = False

    @classmethod
    def at(cls, file: Path, *, retrain_comb: bool = False) -> Project:
        """The project of this koinize.yaml. Raises InputError for every mistake in it."""
        return cls(file, load(file), retrain_comb)

    @property
    def root(self) -> Path:
        """The folder that holds koinize.yaml."""
        return self.file.parent

    @property
    def home(self) -> Path:
        """Where artifacts, ledger and memory are kept."""
        return self.root / HOME

    @property
    def store(self) -> Store:
        """The project's artifacts."""
        return Store(self.home)

    @cached_property
    def inputs(self) -> Inputs:
        """The data as they are now, checked."""
        return survey(self.spec, self.root, self.home / "inputs.json")

    @cached_property
    def steps(self) -> list[Step]:
        """Every step of the project, whether or not it was done."""
        identity = base.identity(self.spec.base, self.root, self.home)
        history = History(
            self.spec, self.inputs, self.root, self.store, retrain_comb=self.retrain_comb
        )
        return graph(self.spec, self.inputs, identity, dict(self._imported()), history)

    def intervals(self) -> list[Interval]:
        """The ledger. Raises KoinizeError when a line of it was changed."""
        return Ledger(self.home / "ledger.jsonl").intervals()

    def experience(self) -> Experience:
        """What the ledger teaches about time. Raises KoinizeError when a line was changed."""
        return recall(Ledger(self.home / "ledger.jsonl"), self.home / "experience.json")

    def plan(self) -> Plan:
        """What is missing, why, and what it will cost."""
        workers, _ = machine.layout(self.spec.machine.workers, self.spec.machine.threads)
        price = self.spec.price.record() if self.spec.price else {}
        return plan(self.steps, self.store, self.experience(), workers, price)

    def run(self, watcher: Watcher, approve: Callable[[Plan], None]) -> tuple[Plan, Outcome]:
        """Do what is missing, holding the project's lock; `approve` may raise to refuse it."""
        with locked(self.home):
            todo = self.plan()
            approve(todo)
            watcher.planned(todo)
            outcome = Outcome()
            if todo.missing or self.experience().unfinished:
                outcome = run(todo.missing, self.spec, self.root, self.home, watcher)
                self.experience()  # read the ledger now, so that the next plan need not
            present = self.store.ids()
            done = {step.name: step.id for step in self.steps if step.id in present}
            self.store.point(done)
            return todo, outcome

    def _imported(self) -> Iterator[tuple[tuple[str, str], str]]:
        """The digests of the adapters that were trained elsewhere, their headers checked."""
        for task, folders in self.spec.adapters.items():
            for language, path in folders.items():
                folder = self.root / path
                self._check_base(folder)
                files = [file_digest(folder / name) for name in ADAPTER_FILES]
                yield (task, language), digest(files)

    def _check_base(self, folder: Path) -> None:
        header = read_header(folder)
        expected = self.spec.base.model
        if header.base_model != expected:
            raise InputError(
                f"was trained on '{header.base_model}'",
                where=str(folder),
                expected=f"an adapter of '{expected}', the project's base model",
                remedy="name that base in koinize.yaml, or train the adapter again",
            )
