"""The study of monthly updates, on the tiny model: two months, and what they cost."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from koinize.examples import write_example

STUDY = Path(__file__).parents[2] / "examples" / "debian" / "study"
MERGE = "merge:\n  candidates: [knots-ties]\nbaselines: [comb]\n"


@pytest.fixture
def study_module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(STUDY))
    import study

    yield study
    sys.modules.pop("study")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The tiny project with one merge, and eight more Japanese rows."""
    write_example("tiny", tmp_path / "tiny")
    spec = tmp_path / "tiny" / "koinize.yaml"
    before, _ = spec.read_text().split("merge:\n")
    base = str(tmp_path / "tiny" / "base")
    text = before.replace("model: base", f"model: {base}").replace(
        "kind: classify", "kind: classify\n    data: data/{language}.{split}.jsonl"
    )
    spec.write_text(f"{text}{MERGE}machine: {{executor: inline}}\n")
    data = tmp_path / "tiny" / "data"
    rows = (data / "ja.train.jsonl").read_text().splitlines()[:8]
    new = [{**json.loads(row), "text": f"new {n} {row[:9]}"} for n, row in enumerate(rows)]
    (data / "ja.extra.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in new))
    return tmp_path / "tiny"


@pytest.mark.slow
def test_months_train_one_language_each_and_go_on_where_they_were(
    source: Path, tmp_path: Path, study_module, capsys: pytest.CaptureFixture[str]
) -> None:
    months = (("ja", 5), ("ja", 3))
    folder = tmp_path / "work"

    def begun():
        return study_module.Study(folder, source / "data", source / "koinize.yaml", months)

    study = begun()
    study.set_up()
    study.month(1)
    study = begun()  # another process
    study.set_up()
    study.month(1)
    assert len((folder / "data" / "ja.train.jsonl").read_text().splitlines()) == 24 + 5
    study.month(2)
    study.retrain_all()
    study.write()
    trained = [one.step for one in study._project().intervals() if one.kind == "train"]
    first = ["train/mood/comb", "train/mood/de", "train/mood/en", "train/mood/ja"]
    assert sorted(trained[:4]) == first
    assert trained[4:] == ["train/mood/ja", "train/mood/ja", "train/mood/comb"]
    assert [entry["what"] for entry in study.log] == [
        "set-up",
        "month 1",
        "month 2",
        "COMB on all rows",
    ]
    assert sum(entry["intervals"] for entry in study.log) == len(study._project().intervals())
    assert "month 2 ja" in capsys.readouterr().out
    assert "Releases and drift" in (folder / "study.html").read_text()
    shutil.rmtree(folder)


def test_without_extra_rows_it_says_what_to_do(tmp_path: Path, study_module, capsys) -> None:
    assert study_module.main([str(tmp_path / "work"), "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} there are no extra rows; python examples/debian/build.py --extra 100\n"
    )
