"""Scores, verdicts and costs as typed values: the very figures of the report."""

from __future__ import annotations

import pytest

import koinize
from koinize.api.found import read
from koinize.report import results
from tests.report.test_results import source


@pytest.fixture(scope="module")
def figures():
    return results(source())


@pytest.fixture(scope="module")
def task(figures) -> koinize.TaskResults:
    return read(figures).task


def test_every_score_and_verdict_of_the_report_is_one(figures, task: koinize.TaskResults) -> None:
    plain = figures["tasks"][0]
    assert [vars_of(one) for one in task.scores] == plain["scores"]
    assert len(task.verdicts) == len(plain["verdicts"]) + len(plain["pooled"])
    assert (task.name, task.chosen) == (plain["name"], plain["chosen"])


def vars_of(score: koinize.Score) -> dict:
    return {name: getattr(score, name) for name in koinize.Score.__dataclass_fields__}


def test_a_score_is_found_by_what_it_is_of(figures, task: koinize.TaskResults) -> None:
    plain = figures["tasks"][0]
    chosen, metric = plain["chosen"], plain["metrics"][0]
    mine = {"system": chosen, "metric": metric, "split": "test"}
    rows = [row for row in plain["scores"] if {**row, **mine} == row]
    by_language = {row["language"]: row["value"] for row in rows}
    assert task.score().value == by_language[None]
    for language in task.languages:
        assert task.score(language=language).value == by_language[language]
    assert task.score("COMB", metric=metric, split="test").system == "COMB"


def test_a_score_that_is_not_there(task: koinize.TaskResults) -> None:
    with pytest.raises(koinize.InputError) as caught:
        task.score("COMP")
    assert str(caught.value) == (
        f"task '{task.name}' has no score of system 'COMP'; did you mean 'COMB'?"
    )


def test_how_a_score_reads() -> None:
    score = koinize.Score("COMB", None, "accuracy", "test", 81.25, 70.04, 90.0, 60, "accuracy|v:1")
    assert str(score) == "81.2 [70.0, 90.0] n=60"


@pytest.mark.parametrize(
    ("said", "passes"),
    [("better", True), ("not worse", True), ("worse", False), ("inconclusive", False)],
)
def test_a_verdict_passes_where_no_loss_is_shown_to_be_possible(task, said, passes) -> None:
    one = task.verdicts[0]
    fields = {name: getattr(one, name) for name in koinize.Verdict.__dataclass_fields__}
    assert koinize.Verdict(**{**fields, "verdict": said}).passes is passes


def test_one_task_is_asked_for_only_where_there_is_one(figures) -> None:
    two = read(figures | {"tasks": [*figures["tasks"], {**figures["tasks"][0], "name": "other"}]})
    with pytest.raises(koinize.InputError, match="the project has 2 tasks"):
        _ = two.task
