"""Intervals of savings, from how far the seconds of the same work vary: arithmetic on paper."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from koinize.ledger import Interval
from koinize.report.costs import Accounts
from koinize.report.formats import saving_between
from koinize.report.input import ReportInput
from koinize.report.variation import Variation

T_1, T_3 = 12.706205, 3.182446  # 97.5 % points of Student's t, as its tables have them


def work(step: str, seconds: float, tokens: int = 100, run: str = "r1") -> Interval:
    return Interval(
        id=step,
        run=run,
        step=step,
        kind=step.split("/")[0],
        artifact=f"id of {step}",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=Decimal(str(seconds)),
        share=Decimal("0.5"),
        device="d",
        status="done",
        tokens=tokens,
        units=tokens,
        error="",
        price={},
    )


def varied(*intervals: Interval) -> Variation:
    return Variation(Accounts(ReportInput("p", "", "", {}, None, [], intervals, {})))


def off(by: float) -> float:
    """100 seconds, where two logarithms that are `by` apart have the deviation by / sqrt(2)."""
    return 100 * math.exp(by * math.sqrt(2))


def ends(ratio: float, deviation: float) -> list[float]:
    factor = math.exp(deviation)
    return [100 * (1 - ratio * factor), 100 * (1 - ratio / factor)]


@pytest.mark.parametrize("run", ["r1", "r2"])
def test_two_trainings_have_one_degree_of_freedom(run: str) -> None:
    """A deviation of 1 % on both sides; each is one step, in the same run or not."""
    seconds = off(0.01) / 5
    comb, update = work("train/t/comb", 100), work("train/t/de", seconds, tokens=20, run=run)
    found = varied(comb, update)
    less = found.less({update.id: seconds}, {comb.id: 100.0})
    assert less == pytest.approx(ends(seconds / 100, T_1 * 0.01 * math.sqrt(2)), abs=1e-4)
    (spread,) = found.spreads.values()
    assert (spread.deviation, spread.steps) == (pytest.approx(0.01), 2)


def test_what_both_sides_are_made_of_makes_neither_dearer() -> None:
    loads = [work("load", 100), replace(work("load", off(0.02)), id="load 2")]
    less = varied(*loads).less({"load": 100.0}, {"load": 100.0})
    assert less == pytest.approx([0.0, 0.0], abs=1e-12)


def test_steps_of_a_run_that_may_stray_alike_do_not_average_out() -> None:
    """Two scorings for a side, in a run each: (1/2 + 1/2)^2 and not 1/4 + 1/4 for either."""
    one, day = off(0.01), "r2"
    tests = [work(f"evaluate/t/m/{i}/test", s) for i, s in enumerate((100, one))]
    tests += [work(f"evaluate/t/COMB/{i}/test", s, run=day) for i, s in enumerate((100, one))]
    ours, theirs = ({one.id: float(one.seconds) for one in some} for some in (tests[:2], tests[2:]))
    # Four logarithms, two of them 0 and two x = .01 sqrt(2): x / sqrt(3). Runs do not differ.
    deviation = 0.01 * math.sqrt(2 / 3)
    less = varied(*tests).less(ours, theirs)
    assert less == pytest.approx(ends(1.0, T_3 * deviation * math.sqrt(2)), abs=1e-3)


def test_two_sorts_have_the_degrees_of_freedom_of_welch_and_satterthwaite() -> None:
    """Half of our seconds are a training and half a scoring, with parts of the variance that are
    equal and have one degree of freedom each: two together, whose t is 4.302653.
    """
    every = [
        work("train/t/de", 100),
        work("train/t/en", off(0.01)),
        work("evaluate/t/m/de/test", 100),
        work("evaluate/t/m/en/test", off(0.01)),
        work("load", 100),
        replace(work("load", 100), id="load 2"),  # never strays
    ]
    ours = {"train/t/de": 50.0, "evaluate/t/m/de/test": 50.0}
    deviation = 0.01 * math.sqrt(1 / 4 + 1 / 4)
    less = varied(*every).less(ours, {"load": 100.0})
    assert less == pytest.approx(ends(1.0, 4.302653 * deviation), abs=1e-3)


def test_whole_runs_that_stray_further_than_their_steps_count() -> None:
    """Means of runs of exp(0) and exp(.02 sqrt(2)): .02. The four steps alone: less."""
    days = [("r1", 100.0), ("r1", 100.0), ("r2", off(0.02)), ("r2", off(0.02))]
    steps = [work(f"train/t/{i}", s, run=run) for i, (run, s) in enumerate(days)]
    (spread,) = varied(*steps).spreads.values()
    assert spread.deviation == pytest.approx(0.02)


def test_what_was_done_once_has_no_interval_unless_it_is_little() -> None:
    comb, update, merge = (
        work("train/t/comb", 100),
        work("train/t/de", 100),
        work("merge/t/m", 5),
    )
    found = varied(comb, update, merge)
    assert found.less({update.id: 100.0, merge.id: 12.0}, {comb.id: 100.0}) is None
    # 5 of 100 seconds may be off by all of themselves: 1.96 * 5 %.
    less = found.less({update.id: 95.0, merge.id: 5.0}, {comb.id: 100.0})
    assert less == pytest.approx(ends(1.0, 1.96 * 0.05), abs=1e-6)
    assert [(one["kind"], one["percent"]) for one in found.rows("t")] == [
        ("train", 0.0),
        ("merge", None),
    ]


def test_an_interval_in_words() -> None:
    assert saving_between(62.04, [54.6, 68.4]) == "62.0 % less (55 to 68)"
    assert saving_between(-12.0, [-30.4, -2.0]) == "12.0 % more (2 to 30)"
    assert saving_between(20.0, [-12.0, 45.0]) == "20.0 % less (12 % more to 45 % less)"
    assert saving_between(20.0, None) == "20.0 % less"
    assert saving_between(None, None) == "–"
