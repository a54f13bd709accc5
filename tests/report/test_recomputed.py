"""The figures of a report, against an oracle that reads the raw rows, ledger and manifests."""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from koinize.pipeline import Project
from koinize.pipeline.report_input import gather
from koinize.report import results
from tests.oracle.report import Place, Recomputed, leaves
from tests.reliability.arena import Arena
from tests.reliability.conftest import write_project

FORMER = sorted((Path(__file__).parents[1] / "pipeline" / "projects").glob("*.tar.xz"))

ASKED = {
    *("format", "project", "created", "version", "spec", "prices", "currency", "notes"),
    *("kind", "metrics", "labels", "margins", "changed_since", "settings", "same_as", "stated"),
    *("signature", "signatures", "started", "device", "trunk", "halved", "reference"),
    *("name", "task", "split", "metric", "system", "language", "label", "run", "step", "scope"),
    *("tone", "lane", "lanes", "interference", "energy", "releases"),
}
"""What says what was asked for, and no figure of it; releases, interference (of tensors) and
energy have tests of their own.
"""


def disagreements(root: Path, report: Mapping[str, Any]) -> list[str]:
    """Where the report and the oracle differ, or one has a figure that the other lacks, in the
    parts of a report that the oracle knows.
    """
    said, found = (
        {place: one for place, one in leaves(each) if not ASKED.intersection(place)}
        for each in (report, Recomputed(root / ".koinize", report).results())
    )
    known = {_part(place) for place in found}
    said = {place: one for place, one in said.items() if _part(place) in known}
    wrong = [f"{place}: no oracle for {said[place]!r}" for place in said.keys() - found.keys()]
    wrong += [f"{place}: the report lacks {found[place]}" for place in found.keys() - said.keys()]
    wrong += [
        f"{place}: {said[place]} and not {found[place]}"
        for place in said.keys() & found.keys()
        if not _equal(said[place], found[place])
    ]
    return sorted(wrong)


def _part(place: Place) -> Place:
    """Such as the verdicts of a task."""
    return place[:3] if place[0] == "tasks" else place[:2]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and other is not None and not isinstance(other, str):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return one == other


@pytest.mark.parametrize("archive", FORMER, ids=[one.name for one in FORMER])
def test_a_project_of_a_former_version(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    said = results(gather(Project.at(folder / "koinize.yaml")))
    assert disagreements(folder, said) == []


def edit(root: Path, language: str) -> None:
    """One row more to train on."""
    rows = root / "data" / f"{language}.train.jsonl"
    line = rows.read_text(encoding="utf-8").splitlines()[0]
    with rows.open("a", encoding="utf-8") as file:
        file.write(line.replace('"text": "', '"text": "more ') + "\n")


def said_by(arena: Arena, root: Path) -> dict[str, Any]:
    ended = arena.koinize("report", "--json", cwd=root)
    assert ended.code == 0, ended.output
    said: dict[str, Any] = json.loads(ended.output)
    return said


@pytest.fixture
def arena() -> Iterator[Arena]:
    """Steps of a few bytes; all around them is real."""
    with Arena(fake=True) as arena:
        yield arena


def test_set_up_and_updates_of_every_language(arena: Arena, tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_project(root)
    with (root / "koinize.yaml").open("a", encoding="utf-8") as file:
        file.write('price: {per_hour: "0.36", source: an assumption, date: 2026-01-01}\n')
    assert arena.koinize("run", cwd=root).code == 0
    for language in ("de", "en"):
        edit(root, language)
        assert arena.koinize("run", cwd=root).code == 0
    assert arena.koinize("run", "--retrain-comb", cwd=root).code == 0
    said = said_by(arena, root)
    assert disagreements(root, said) == []
    assert len(said["costs"]["runs"]) == 4


@pytest.mark.slow
def test_a_project_that_is_really_trained(tmp_path: Path) -> None:
    with Arena(fake=False) as arena:
        assert arena.koinize("init", "--example", "tiny", "project", cwd=tmp_path).code == 0
        root = tmp_path / "project"
        spec = root / "koinize.yaml"
        spec.write_text(spec.read_text().replace("\nmerge:\n", "\nmerge:\n  update: keep\n"))
        for changed in (False, True):
            if changed:
                edit(root, "ja")
            assert arena.koinize("run", cwd=root).code == 0
            said = said_by(arena, root)
            assert disagreements(root, said) == []
            assert any("was kept from the choice" in one for one in said["notes"]) == changed
