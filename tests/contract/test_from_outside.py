"""A metric and a task kind are one file each: both come from outside the package here, and the
specification, the plan, the report and the gate work with them. Nothing in koinize names them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import koinize.metrics
import koinize.tasks
from koinize.errors import GateError, InputError
from koinize.metrics import metrics
from koinize.pipeline import report_input
from koinize.release import Promotion, promote
from koinize.report import render_html, results
from koinize.spec import load, schema
from koinize.tasks import tasks
from tests.pipeline.conftest import Small
from tests.release.releasing import TEST_ROWS, finish, texts

WITHIN_ONE = '''
"""Within one: the share of rows whose prediction is at most one star off."""

from typing import ClassVar

from koinize.metrics._metric import MeanMetric, ResultRow


class WithinOne(MeanMetric):
    """100 x such rows / rows."""

    name = "within-one"
    reads = "options"
    margin: ClassVar[float] = 3.0

    def row_score(self, row: ResultRow) -> float:
        """1 for a near miss, too."""
        return float(abs(int(row["prediction"]) - int(row["gold"])) <= 1)


metric = WithinOne()
'''

RATE = '''
"""Rate: so many stars, each an option."""

from typing import ClassVar, Literal

from pydantic import Field

from koinize.tasks._task import Example, Metrics, Task


class Rate(Task):
    """The model chooses among 1, 2, ... stars."""

    mode: ClassVar[Literal["options", "text"]] = "options"

    kind: Literal["rate"] = "rate"
    most: int = Field(default=5, ge=2, description="the most stars")
    metrics: Metrics = ("within-one", "accuracy")

    @property
    def label_set(self):
        return tuple(str(one) for one in range(1, self.most + 1))

    def example(self, row, language, key):
        labels, gold = self.label_set, int(row.columns["stars"]) - 1
        options = tuple(f" {one}" for one in labels)
        prompt = self._prompt(row, language)
        return Example(key, language, prompt, options[gold], options, labels, gold)

    def describe(self):
        return f"rate: 1 to {self.most} stars"


task = Rate
'''

SPEC = """\
koinize: 1
name: stars
base: {model: base, revision: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb}
languages: [en, de]
tasks:
  mood:
    kind: rate
    most: 4
    prompt: "{text} ="
merge: {candidates: [knots-ties]}
machine: {executor: inline}
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two files in a folder of their own, which the packages look into as well."""
    plug_ins = (
        (koinize.metrics, metrics, "within_one", WITHIN_ONE),
        (koinize.tasks, tasks, "rate", RATE),
    )
    for package, catalog, module, source in plug_ins:
        folder = tmp_path / "outside" / package.__name__
        folder.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        package.__path__.append(str(folder))
        vars(catalog).pop("_names", None)
    yield
    for package, catalog, module, _ in plug_ins:
        package.__path__.pop()
        vars(catalog).pop("_names", None)
        sys.modules.pop(f"{package.__name__}.{module}", None)


class Stars(Small):
    """A project whose rows are all worth the most stars: four, or as many as it is told."""

    def __init__(self, root: Path, most: int = 4) -> None:
        root.mkdir()
        self.most = most
        super().__init__(root)
        self.spec(SPEC.replace("most: 4", f"most: {most}"))
        for language in ("de", "en"):
            self.rows(language, "test", texts(language))

    def rows(self, language: str, split: str, texts: list[str]) -> None:
        rows = "".join(json.dumps({"text": one, "stars": self.most}) + "\n" for one in texts)
        (self.root / "data" / f"{language}.{split}.jsonl").write_text(rows)


@pytest.fixture
def stars(outside: None, tmp_path: Path) -> Stars:
    return Stars(tmp_path / "project")


def test_the_specification_knows_them(stars: Stars) -> None:
    task = load(stars.root / "koinize.yaml").tasks["mood"]
    assert (task.describe(), task.label_set) == ("rate: 1 to 4 stars", ("1", "2", "3", "4"))
    assert "the most stars" in json.dumps(schema())
    stars.spec(SPEC.replace("rate", "classify").replace("most: 4", "labels: ['1', '2']"))
    load(stars.root / "koinize.yaml")
    stars.spec(SPEC.replace("most: 4", "metrics: [rouge-l]"))
    with pytest.raises(InputError, match="'rouge-l' does not fit a task of kind 'rate'"):
        load(stars.root / "koinize.yaml")


def test_the_pipeline_plans_them(stars: Stars) -> None:
    before, names = stars.steps(), set(stars.steps())
    assert {"train/mood/de", "evaluate/mood/COMB/de/test", "select/mood"} <= names
    stars.spec(SPEC.replace("most: 4", "most: 5"))  # a fifth option, so other examples
    assert stars.steps()["train/mood/de"].id != before["train/mood/de"].id


@pytest.mark.slow
def test_the_report_scores_and_judges_by_them(
    stars: Stars, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 of 400 answers in German are "3" and not "4": 99 points of accuracy, 100 of within-one."""
    monkeypatch.setattr(report_input, "interference", lambda *_: None)  # of adapters that are none
    found = results(report_input.gather(finish(stars, wrong={"de": 4})))
    (task,) = found["tasks"]
    assert task["margins"] == {"within-one": 3.0, "accuracy": 2.0}
    scores = {
        (row["metric"], row["system"], row["language"]): row["value"]
        for row in task["scores"]
        if row["split"] == "test"
    }
    assert scores["accuracy", "COMB", "de"] == pytest.approx(100 * (TEST_ROWS - 4) / TEST_ROWS)
    assert scores["within-one", "COMB", "de"] == 100.0
    judged = [row for row in task["verdicts"] if row["metric"] == "within-one"]
    assert {(row["margin"], row["difference"]) for row in judged} == {(3.0, 0.0)}
    assert "within-one" in render_html(found)


def second_release(stars: Stars) -> Promotion:
    """A release, and then a candidate that gives 40 of 400 German rows another answer."""
    assert promote(finish(stars), "mood", "production").switched
    stars.rows("de", "train", [f"de more {n}" for n in range(4)])
    return promote(finish(stars, wrong={"de": 40}), "mood", "production")


@pytest.mark.slow
def test_the_gate_passes_what_they_pass(stars: Stars) -> None:
    """40 times "3" and not "4": near misses, which the task's first metric forgives."""
    assert second_release(stars).switched


@pytest.mark.slow
def test_the_gate_refuses_what_they_refuse(outside: None, tmp_path: Path) -> None:
    """40 times "3" and not "5": 10 points less, where 3 are tolerated."""
    worse = second_release(Stars(tmp_path / "project", most=5))
    assert not worse.switched
    with pytest.raises(GateError, match="within-one"):
        worse.refuse()
    [german] = [one for one in worse.judgement.gated if one.language == "de"]
    assert german.verdict.difference == pytest.approx(-10.0)
    assert german.verdict.margin == 3.0


def test_they_are_gone_afterwards() -> None:
    """So that no other test meets them."""
    assert "within-one" not in metrics.names()
    assert "rate" not in tasks.names()
