"""Verdicts by a margin that was another one when test was first scored."""

from dataclasses import replace

from koinize.ledger import Stated
from koinize.report import results
from koinize.report.quality import Judged
from tests.report.conftest import CHOSEN, report_input, task_input


def test_verdicts_by_a_margin_that_was_changed():
    """What 40 points allow, 2 do not: both are told."""
    stated = Stated("2026-11-26T10:00:00+00:00", {"macro-f1": 2.0, "accuracy": 2.0}, True)
    task = task_input(test_rows=60)
    few = [one for one in task.systems if one.name in (CHOSEN, "COMB")]
    task = replace(task, systems=few, margins={"macro-f1": 40.0, "accuracy": 2.0}, stated=stated)
    [changed] = Judged(task).results()["stated"]["changed"]
    before = Judged(replace(task, margins=stated.margins)).results()
    pooled = next(row for row in before["pooled"] if row["system"] == CHOSEN)
    joint = next(row for row in before["joint"] if row["system"] == CHOSEN)
    assert changed == {
        "metric": "macro-f1",
        "margin": 2.0,
        "now": 40.0,
        "mean": pooled["verdict"],
        "joint": joint["verdict"],
    }


def test_a_metric_that_came_later_is_named():
    """Whoever puts another metric in place of the recorded one has not said its margin before."""
    stated = Stated("2026-11-26T10:00:00+00:00", {"accuracy": 2.0}, True)
    task = task_input(test_rows=20)
    few = [one for one in task.systems if one.name in (CHOSEN, "COMB")]
    found = results(report_input(tasks=[replace(task, systems=few, stated=stated)]))
    assert found["tasks"][0]["stated"]["later"] == ["macro-f1"]
    assert any("No margin of macro-f1 was recorded then." in note for note in found["notes"])
