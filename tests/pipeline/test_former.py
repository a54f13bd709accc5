"""Projects that an earlier koinize made: they open, nothing of them is missing, they go on."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from koinize.pipeline import Project
from koinize.pipeline.report_input import gather
from koinize.release.candidate import candidate
from koinize.report import results

MADE = sorted((Path(__file__).parent / "projects").glob("*.tar.xz"))


@pytest.fixture(params=MADE, ids=[one.name for one in MADE])
def former(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    return Project.at(folder / "koinize.yaml")


def test_nothing_is_missing(former: Project) -> None:
    todo = former.plan()
    assert todo.missing == ()
    assert todo.total == len(former.store.ids())


@pytest.mark.slow
def test_it_is_a_candidate_and_has_a_report(former: Project) -> None:
    (task,) = former.spec.tasks
    ours = candidate(former, task)
    assert set(ours.rows) == set(former.spec.languages)
    told = results(gather(former))
    (costs,) = (one["costs"] for one in told["tasks"])
    assert costs["combined_is"] == "measured"  # its ledger is read, its COMB found in it
    assert all(one["update"] for update in costs["updates"] for one in update["scopes"])


def test_its_ledger_teaches_what_its_steps_take(former: Project) -> None:
    """Rates stand apart as they did, although its lines have no fields of an address."""
    sorts = {(kind, about) for _, kind, about in former.experience().tallies}
    assert {("train", "mood"), ("evaluate", "mood"), ("merge", "ties")} <= sorts
    shutil.rmtree(former.store.root / "artifacts")
    assert former.plan().guessed == ()


def test_what_only_bounds_memory_rebuilds_nothing(former: Project) -> None:
    text = former.file.read_text()
    former.file.write_text(text + "\nevaluation: {batch_tokens: 512}\n")
    again = Project.at(former.file)
    assert again.plan().missing == ()
