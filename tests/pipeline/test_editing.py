"""Languages come and go in a real project: who is trained, and whose bytes stay."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.test_end_to_end import artifacts, koinize

pytestmark = pytest.mark.slow

SPLITS = ("train", "dev", "test")


def tiny(root: Path, spec: dict[str, str]) -> Path:
    """A tiny project with these pieces of its koinize.yaml replaced."""
    koinize("init", "--example", "tiny", "project", cwd=root)
    file = root / "project" / "koinize.yaml"
    text = file.read_text().replace("mean_scales: [1.0]", "mean_scales: [1.0]\nbaselines: [indv]")
    for old, new in spec.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return root / "project"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tiny(tmp_path_factory.mktemp("all"), {})
    koinize("run", cwd=project)
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def files(project: Path) -> dict[str, str]:
    """Every file of every artifact -> the digest of its bytes."""
    store = project / ".koinize" / "artifacts"
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file()
    }


def trained(project: Path) -> set[str]:
    return {name for name in artifacts(project) if name.startswith("train/")}


def test_adding_trains_one_adapter_and_touches_no_other(project: Path) -> None:
    for split in SPLITS:
        rows = (project / "data" / f"ja.{split}.jsonl").read_text()
        (project / "data" / f"sw.{split}.jsonl").write_text(rows.replace('"text": "', '"text": "z'))
    before, trainings = files(project), trained(project)
    spec = (project / "koinize.yaml").read_bytes()
    assert "1 train, " in koinize("language", "add", "sw", cwd=project)
    koinize("run", cwd=project)
    after = files(project)
    assert {name: after[name] for name in before} == before
    assert trained(project) - trainings == {"train/mood/sw"}
    koinize("language", "remove", "sw", cwd=project)
    assert (project / "koinize.yaml").read_bytes() == spec
    assert json.loads(koinize("plan", "--json", cwd=project))["missing"] == []


def test_new_rows_train_one_adapter_and_touch_no_other(project: Path) -> None:
    (project / "more.jsonl").write_text('{"text": "新しい 最高 素敵", "label": "good"}\n')
    before, ids = files(project), artifacts(project)
    koinize("language", "update", "ja", "--append", "more.jsonl", cwd=project)
    koinize("run", cwd=project)
    after, now = files(project), artifacts(project)
    assert {name: after[name] for name in before} == before
    changed = {name for name in trained(project) if now[name]["id"] != ids[name]["id"]}
    assert changed == {"train/mood/ja"}


def test_a_removal_leaves_what_a_project_without_the_language_makes(
    project: Path, tmp_path: Path
) -> None:
    before = artifacts(project)
    answer = json.loads(koinize("whatif", "--without", "ja", "--json", cwd=project))
    assert len(answer["answers"][0]["languages"]) == 3
    koinize("language", "remove", "ja", cwd=project)
    koinize("run", cwd=project)
    (tmp_path / "other").mkdir()
    never = tiny(tmp_path / "other", {"[de, en, ja]": "[de, en]"})
    koinize("run", cwd=never)
    ours, theirs = artifacts(project), artifacts(never)
    names = [name for name in theirs if name.startswith(("merge/", "train/", "evaluate/"))]
    assert [name for name in names if name.startswith("merge/")]
    for name in names:
        assert ours[name]["id"] == theirs[name]["id"], name
        assert ours[name]["files"] == theirs[name]["files"], name
    for name in ("train/mood/de", "train/mood/en"):
        assert ours[name] == before[name]
    # The merge that the question made is the one that the removal needs; its cost is known.
    made = json.loads(koinize("report", "--json", cwd=project))
    assert made["tasks"][0]["chosen"] == ours["select/mood"]["facts"]["chosen"]
    [merges] = [row for row in made["costs"]["breakdown"] if row["label"] == "merge the candidates"]
    assert merges["steps"] == 3
