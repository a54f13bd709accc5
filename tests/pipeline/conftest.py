"""A small project whose graph can be planned without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from koinize.errors import KoinizeError
from koinize.pipeline import Project
from koinize.pipeline import run as running
from koinize.pipeline.graph import graph
from koinize.pipeline.inputs import examples_of, survey
from koinize.pipeline.lineage import History, read_learnt, together, write_learnt
from koinize.pipeline.step import Step
from koinize.pipeline.work import Failure, Job
from koinize.spec import Spec, load
from koinize.store import Store

SPEC = """\
koinize: 1
name: small
base: {model: base}
languages: [en, de]
tasks:
  mood:
    kind: classify
    labels: [good, bad]
    prompt: "{text} ="
training: {epochs: 2}
merge: {candidates: [paper], mean_scales: [1.0, 2.0]}
machine: {executor: inline}
"""


def done_by(monkeypatch: pytest.MonkeyPatch, perform: Callable[[Job], object]) -> None:
    """Let this do every step, also those that a worker has in hand together."""

    def several(jobs: Sequence[Job]) -> dict[str, Failure]:
        failures: dict[str, Failure] = {}
        for job in jobs:
            try:
                perform(job)
            except KoinizeError as error:
                failures[job.step.id] = Failure(error=str(error), seconds=0.0)
        return failures

    monkeypatch.setattr(running, "perform", perform)
    monkeypatch.setattr(running, "perform_together", several)


class Small:
    """The project's folder, and its steps as they are now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "data").mkdir()
        for language in ("de", "en"):
            for split, count in (("train", 4), ("dev", 2), ("test", 3)):
                self.rows(language, split, [f"{language} {split} {n}" for n in range(count)])
        self.spec(SPEC)

    def spec(self, text: str) -> None:
        (self.root / "koinize.yaml").write_text(text, encoding="utf-8")

    def rows(self, language: str, split: str, texts: list[str]) -> None:
        rows = [{"text": t, "label": ("good", "bad")[n % 2]} for n, t in enumerate(texts)]
        path = self.root / "data" / f"{language}.{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def steps(
        self,
        store: Store | None = None,
        *,
        retrain_comb: bool = False,
        new_generation: bool = False,
    ) -> dict[str, Step]:
        """As they are after what this store holds; by default, after nothing."""
        spec = load(self.root / "koinize.yaml")
        inputs = survey(spec, self.root, self.root / "memory.json")
        history = History(
            spec,
            inputs,
            self.root,
            store or Store(self.root / "nothing"),
            retrain_comb=retrain_comb,
            new_generation=new_generation,
        )
        return {step.name: step for step in graph(spec, inputs, "b" * 64, {}, history)}

    def project(self, monkeypatch: pytest.MonkeyPatch) -> Project:
        """The same as a project, whose base model nobody looks for."""
        monkeypatch.setattr("koinize.model.base.identity", lambda *_: "b" * 64)
        return Project.at(self.root / "koinize.yaml")

    def real(self) -> Project:
        """The same with whatever base model lies in its folder."""
        return Project.at(self.root / "koinize.yaml")

    def made(self, store: Store | None = None) -> Store:
        """A store in which every training was done, with the rows that it saw."""
        store = store or Store(self.root / "made")
        spec = load(self.root / "koinize.yaml")
        for step in self.steps(store).values():
            if step.kind != "train":
                continue
            if step.id not in store.ids():
                with store.building(step.id, step.name, step.identity) as draft:
                    draft.facts |= {"rows": dict(step.rows), "settings": dict(step.settings)}
                    learnt = self._learnt(spec, step, store)
                    write_learnt(draft.folder, learnt)
            store.point({step.name: step.id})
        return store

    def _learnt(self, spec: Spec, step: Step, store: Store) -> dict[str, list[str]]:
        today = {
            one: [
                row.digest for row in examples_of(spec.tasks["mood"], self.root, one, "train", None)
            ]
            for one in step.languages
        }
        parent = step.uses.parent
        return together(today, read_learnt(store.open(parent)) if parent else {})


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)
