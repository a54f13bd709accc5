"""A project whose run is finished, without a model: its artifacts are written by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from koinize.adapter import ADAPTER_FILES
from koinize.data import read_rows
from koinize.pipeline import Project
from koinize.release import Releases
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small

TEST_ROWS = 400  # equal answers on so many rows have an interval of +-0.75 points, within +-2
CHOSEN = "knots-ties density 1"
ONE_MERGE = SPEC.replace("[paper]", "[knots-ties]").replace(
    'prompt: "{text} ="', 'prompt: "{text} ="\n    metrics: [accuracy]'
)


def prepared(root: Path) -> Small:
    """A project of one merge, with test rows enough to show that a language is not worse."""
    small = Small(root)
    small.spec(ONE_MERGE)
    for language in ("de", "en"):
        small.rows(language, "test", texts(language))
    return small


def texts(language: str, start: int = 0) -> list[str]:
    return [f"{language} test {n}" for n in range(start, start + TEST_ROWS)]


def project_of(small: Small) -> Project:
    return Project.at(small.root / "koinize.yaml")


def finish(
    small: Small, wrong: Mapping[str, int] | None = None, merged: Path | None = None
) -> Project:
    """Make what is missing; per language, so many of the first test rows by key are wrong. Merges
    are copies of `merged`, or no adapters at all.
    """
    project = project_of(small)
    store = project.store

    @cache
    def said(language: str, split: str) -> str:
        return answers(project, language, split, wrong or {})

    for step in project.steps:
        if step.id in store.ids():
            continue
        with store.building(step.id, step.name, step.identity) as draft:
            if step.kind == "select":
                chosen, adapter = next(iter(step.uses.candidates.items()))
                draft.facts.update(chosen=chosen.title, adapter=adapter)
            elif step.kind == "evaluate":
                (draft.folder / "rows.jsonl").write_text(said(step.languages[0], step.split))
            elif step.kind == "merge":
                draft.facts.update(rank=8, truncation_error=0.0)
                (draft.folder / "adapter_config.json").write_text("{}")
                weights = f"{' '.join(step.uses.adapters)} {step.id}"
                (draft.folder / "adapter_model.safetensors").write_text(weights)
                (draft.folder / "README.md").write_text("# Merged adapter\n")
                for name in ADAPTER_FILES if merged else ():
                    shutil.copyfile(merged / name, draft.folder / name)
    store.point({step.name: step.id for step in project.steps})
    return project


def answers(project: Project, language: str, split: str, wrong: Mapping[str, int]) -> str:
    task = project.spec.tasks["mood"]
    examples = task.examples(read_rows(task.source(language, split), project.root), language)
    lines = []
    for n, one in enumerate(examples):
        right = n >= wrong.get(language, 0)
        said = one.gold if right else 1 - one.gold
        row = {
            "key": one.key,
            "language": language,
            "gold": one.labels[one.gold],
            "prediction": one.labels[said],
        }
        if task.evaluation(project.spec.evaluation, split).free:  # as right as what is chosen
            row |= {"written": one.labels[said] if right else "so so"}
            row |= {"answer": one.labels[said] if right else "", "tokens": 3}
        lines.append(json.dumps(row) + "\n")
    return "".join(lines)


def retrain(small: Small, language: str, rows: int) -> None:
    """Other training rows: a new adapter of this language, and so a new merge."""
    small.rows(language, "train", [f"{language} more {n}" for n in range(rows)])


def releases(project: Small | Project) -> Releases:
    return Releases(project.root / ".koinize", "mood")


def artifact_folder(root: Path, name: str) -> Path:
    store = Store(root / ".koinize")
    return root / ".koinize" / "artifacts" / store.names()[name]


class Quiet:
    """A watcher that shows nothing."""

    def planned(self, todo: object) -> None: ...

    def started(self, step: object) -> None: ...

    def resumed(self, step: object, done: int, total: int) -> None: ...

    def moved(self, step: object, done: int, total: int) -> None: ...

    def ended(self, step: object, seconds: float, error: str) -> None: ...
