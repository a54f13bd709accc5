"""Updates of one language by training on, as a user runs them: the tiny example."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.test_end_to_end import artifacts, koinize

pytestmark = pytest.mark.slow

TRAININGS = ("train/mood/de", "train/mood/en", "train/mood/ja", "train/mood/comb")
CONTINUED = "train/mood/comb-continued"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that continues its adapters, run once: one merge, few systems."""
    root = tmp_path_factory.mktemp("updating")
    koinize("init", "--example", "tiny", "project", cwd=root)
    project = root / "project"
    text = (project / "koinize.yaml").read_text()
    text = text.replace("max_length: 128}", "max_length: 128, update: {mode: continue}}")
    text = text.replace("density: [0.5, 1.0]", "density: 0.5").replace("    - knots-ties\n", "")
    text += "baselines: [comb, comb-continued]\nmachine: {executor: inline}\n"
    (project / "koinize.yaml").write_text(text)
    koinize("run", cwd=project)
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def add(project: Path, *rows: tuple[str, str]) -> None:
    path = project / "data" / "ja.train.jsonl"
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    path.write_text(path.read_text() + "".join(lines))


def planned(project: Path) -> dict[str, str]:
    found = json.loads(koinize("plan", "--json", cwd=project))["missing"]
    return {one["step"]: one["why"] for one in found if one["step"].startswith("train/")}


def bytes_of(project: Path, name: str) -> bytes:
    names = json.loads((project / ".koinize" / "names.json").read_text())
    return (project / ".koinize" / "artifacts" / names[name] / WEIGHTS).read_bytes()


def figures(project: Path) -> dict[tuple[str, str], list[Any]]:
    [task] = json.loads(koinize("report", "--json", cwd=project))["tasks"]
    found: dict[tuple[str, str], list[Any]] = {}
    for row in task["scores"]:
        if row["split"] == "test" and row["language"]:
            found.setdefault((row["system"], row["language"]), []).append(row["value"])
    return found


def test_two_updates_in_a_row_train_one_language_each_from_its_last_adapter(project: Path) -> None:
    first = artifacts(project)
    assert CONTINUED not in first
    before = figures(project)
    assert all(before["COMB-CONTINUED", one] == before["COMB", one] for one in ("de", "en", "ja"))
    weights = {name: bytes_of(project, name) for name in TRAININGS}

    add(project, ("最高 素敵 最高 もっと", "good"), ("残念 最低 最低 もっと", "bad"))
    short = first["train/mood/ja"]["id"][:12]
    why = planned(project)
    assert set(why) == {"train/mood/ja", CONTINUED}
    assert why["train/mood/ja"].startswith(f"2 new rows: continued from {short} with 6 of 24 ")
    koinize("run", cwd=project)
    second = artifacts(project)
    japanese, comb = second["train/mood/ja"], second[CONTINUED]
    assert japanese["inputs"]["parent"] == first["train/mood/ja"]["id"]
    assert comb["inputs"]["parent"] == first["train/mood/comb"]["id"]
    assert (japanese["facts"]["examples"], comb["facts"]["examples"]) == (2 + 6, 2 + 3 * 6)
    assert (japanese["facts"]["updates"], first["train/mood/ja"]["facts"]["updates"]) == (1, 0)
    for name in ("train/mood/de", "train/mood/en", "train/mood/comb"):
        assert second[name] == first[name]
        assert bytes_of(project, name) == weights[name]
    assert bytes_of(project, "train/mood/ja") != weights["train/mood/ja"]
    assert koinize("run", cwd=project).startswith("nothing to do;")

    add(project, ("素敵 良い 良い さらに", "good"))
    assert planned(project)["train/mood/ja"].startswith("1 new row: continued from ")
    koinize("run", cwd=project)
    third = artifacts(project)
    assert third["train/mood/ja"]["inputs"]["parent"] == japanese["id"]
    assert third[CONTINUED]["inputs"]["parent"] == comb["id"]
    assert third["train/mood/ja"]["facts"]["updates"] == 2
    assert third["train/mood/ja"]["facts"]["examples"] == 1 + 6  # a quarter of 26 old rows
    assert third["train/mood/de"] == first["train/mood/de"]
    results = json.loads(koinize("report", "--json", cwd=project))
    assert (
        "train/mood/ja was continued 2 times since it was trained from the base"
        in (results["notes"])
    )
    assert [one["name"] for one in results["tasks"][0]["systems"]][:2] == ["COMB", "COMB-CONTINUED"]
    after = figures(project)
    assert {system for system, _ in after} >= {"COMB", "COMB-CONTINUED"}


def test_the_same_update_gives_the_same_bytes(project: Path, tmp_path: Path) -> None:
    add(project, ("最高 素敵 最高 もっと", "good"))
    again = Path(shutil.copytree(project, tmp_path / "again"))
    koinize("run", cwd=project)
    # The rows in another order, and a run that was killed after its first trainings.
    path = again / "data" / "ja.train.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    names = (again / ".koinize" / "names.json").read_bytes()
    koinize("run", cwd=again)
    (again / ".koinize" / "names.json").write_bytes(names)
    assert koinize("run", cwd=again).startswith("nothing to do;")
    for name in ("train/mood/ja", CONTINUED):
        assert artifacts(again)[name]["id"] == artifacts(project)[name]["id"]
        assert bytes_of(again, name) == bytes_of(project, name)


def test_comb_retrained_stands_beside_comb_continued(project: Path) -> None:
    add(project, ("最高 素敵 最高 もっと", "good"))
    koinize("run", cwd=project)
    continued = artifacts(project)[CONTINUED]
    koinize("run", "--retrain-comb", cwd=project)
    after = artifacts(project)
    assert "parent" not in after["train/mood/comb"]["inputs"]
    assert after["train/mood/comb"]["facts"]["examples"] == 3 * 24 + 1
    assert after[CONTINUED] == continued
    assert koinize("run", cwd=project).startswith("nothing to do;")
    assert {"COMB", "COMB-CONTINUED"} <= {system for system, _ in figures(project)}
