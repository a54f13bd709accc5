"""Estimates: every figure by hand, and intervals that hold what they promise in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from koinize.ledger import LOAD
from koinize.pipeline.estimate import (
    GUESS,
    PRIOR_DRIFT,
    PRIOR_SCATTER,
    Estimate,
    Rate,
    Rates,
    Work,
    less,
    rate_of,
    schedule,
    together,
)
from koinize.pipeline.experience import Experience, Tally, learn
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.step import Step, Uses
from tests.pipeline.ledgers import interval
from tests.pipeline.steps import step_named

OTHER_TASK, OTHER_RECIPE = KINDS["evaluate"].other, KINDS["merge"].other
SURE = Rate(1.0, drift=0.0, error=0.0, scatter=0.0)


def step(name: str, kind: str = "train", **more: object) -> Step:
    return step_named(name, kind, **more)


def work(name: str, seconds: float, kind: str = "train", **more: object) -> Work:
    return Work(step(name, kind, **more), SURE, seconds)


def test_a_rate_by_hand() -> None:
    # Three steps of 100 units in 10, 30 and 20 s: 0.2 s a unit, off by -50, +50 and 0 %.
    rate = rate_of(Tally.of_run([(10, 100), (30, 100), (20, 100)]))
    assert rate.per_unit == pytest.approx(0.2)
    # The prior counts for two of three degrees of freedom; 0.5 is the sum of the squares seen.
    scatter = (2 * PRIOR_SCATTER**2 + 0.5) / (2 + 3 - 1)
    assert rate.scatter == pytest.approx(math.sqrt(scatter))
    assert rate.error == pytest.approx(math.sqrt(scatter / 3))  # of a mean of three
    # One run tells nothing of how runs differ, and strayed itself as much as the next one may.
    assert rate.drift == pytest.approx(PRIOR_DRIFT * math.sqrt(2))


def test_a_large_step_says_more_than_a_small_one() -> None:
    # 900 units in 90 s and 100 units in 30 s: 0.12 s a unit; off by 90/108 - 1 and 30/12 - 1.
    rate = rate_of(Tally.of_run([(90, 900), (30, 100)]))
    assert rate.per_unit == pytest.approx(0.12)
    seen = 2 * (0.9 * (90 / 108 - 1) ** 2 + 0.1 * (30 / 12 - 1) ** 2)
    assert rate.scatter == pytest.approx(math.sqrt((2 * PRIOR_SCATTER**2 + seen) / 3))


def test_runs_that_differ_widen_the_drift() -> None:
    slow, fast = Tally.of_run([(30, 100)] * 4), Tally.of_run([(10, 100)] * 4)
    # 0.2 s a unit over both, one 50 % above it and one 50 % below, of equal weight.
    drift = (2 * PRIOR_DRIFT**2 + 0.5) / (2 + 2 - 1)
    assert rate_of(slow + fast).drift == pytest.approx(math.sqrt(drift * 1.5))


def test_a_sum_by_hand() -> None:
    one = Rate(1.0, drift=0.05, error=0.1, scatter=0.2)
    other = Rate(2.0, drift=0.1, error=0.0, scatter=0.3)
    found = together([(one, 10.0), (one, 30.0), (other, 20.0)])
    # drift over everything, error over what one rate predicts, scatter over single steps
    variance = (0.05 * 40 + 0.1 * 20) ** 2 + (0.1 * 40) ** 2 + 0.04 * (100 + 900) + 0.09 * 400
    factor = math.exp(1.96 * math.sqrt(variance) / 60)
    assert found == Estimate(60.0, pytest.approx(60 / factor), pytest.approx(60 * factor))


def test_less_by_hand() -> None:
    """30 s of one rate against 40 s of the same and 60 s of another: 70 % less."""
    one = Rate(1.0, drift=0.2, error=0.1, scatter=0.3)
    other = Rate(2.0, drift=0.1, error=0.4, scatter=0.0)
    found = less([(one, 30.0)], [(one, 40.0), (other, 60.0)])
    assert found is not None
    # What is off in `one` is off in all of the first and in 0.4 of the second: 0.6 of it stays.
    drift = 0.2 * 0.6 - 0.1 * 0.6
    variance = drift**2 + (0.1 * 0.6) ** 2 + (0.4 * 0.6) ** 2
    variance += 0.3**2 * (30**2 / 30**2 + 40**2 / 100**2)
    factor = math.exp(1.96 * math.sqrt(variance))
    assert found.value == pytest.approx(70)
    assert found.low == pytest.approx(100 * (1 - 0.3 * factor))
    assert found.high == pytest.approx(100 * (1 - 0.3 / factor))


def test_a_busy_machine_saves_nothing() -> None:
    """Drift alone moves both sides alike."""
    busy = Rate(1.0, drift=0.5, error=0.3, scatter=0.0)
    found = less([(busy, 20.0)], [(busy, 80.0)])
    assert found is not None
    assert (found.low, found.value, found.high) == (75.0, 75.0, 75.0)
    assert less([(busy, 20.0)], []) is None


def test_nothing_takes_no_time() -> None:
    assert together([]) == Estimate(0.0, 0.0, 0.0)


def simulated(rng: np.random.Generator, count: int) -> list[tuple[float, int]]:
    """Steps of one run at a hundredth of a second a unit, with the scatter and drift assumed."""
    drift = np.exp(rng.normal(0, PRIOR_DRIFT))
    units = np.exp(rng.normal(8, 0.8, count)).astype(int) + 1
    return [(0.01 * u * drift * np.exp(rng.normal(0, PRIOR_SCATTER)), int(u)) for u in units]


@pytest.mark.parametrize(("runs", "past", "todo"), [(1, 1, 1), (1, 10, 10), (3, 5, 50), (9, 20, 4)])
def test_the_interval_holds_nine_times_out_of_ten_or_more(runs: int, past: int, todo: int) -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        tally = sum((Tally.of_run(simulated(rng, past)) for _ in range(runs)), Tally())
        rate, truth = rate_of(tally), simulated(rng, todo)
        found = together((rate, rate.seconds(units)) for _, units in truth)
        held += found.low <= sum(seconds for seconds, _ in truth) <= found.high
    # 19 of 20 is aimed at; 300 tries have a standard error of 1.3 points.
    assert held / 300 >= 0.9


def test_rates_belong_to_a_task_and_a_machine() -> None:
    rates = Rates(
        learn(
            [
                interval("evaluate", "10", 100, step="evaluate/topic/X/de/dev"),
                interval("evaluate", "90", 100, step="evaluate/summary/X/de/dev"),
                interval("merge", "7", 1, step="merge/topic/x", device="another"),
            ]
        ),
        interval("x", "1", 1).device,
    )
    own, new = rates.of("evaluate", "topic"), rates.of("evaluate", "choice")
    assert own.per_unit == pytest.approx(0.1)
    assert new.per_unit == pytest.approx(0.5)  # of both tasks together
    assert new.error > OTHER_TASK > own.error
    elsewhere, guess = rates.of("merge", "topic"), rates.of("select", "topic")
    assert (elsewhere.per_unit, elsewhere.learnt) == (7.0, True)
    assert elsewhere.drift > GUESS
    assert (guess.drift, guess.learnt) == (GUESS, False)


def test_the_rate_of_a_merge_belongs_to_its_recipe() -> None:
    device = interval("x", "1", 1).device
    merges = [
        interval("merge", "2", 1, step="merge/topic/mean scale 2"),
        interval("merge", "4", 1, step="merge/summary/mean"),
        interval("merge", "300", 1, step="merge/topic/ties density 0.5"),
        interval("merge", "0.5", 1, step="merge/topic/iso", device="another"),
    ]
    rates = Rates(learn(merges), device)

    def rate(name: str) -> Rate:
        return rates.step(step(name, "merge"))

    assert rate("merge/new/mean").per_unit == 3.0  # whatever the task
    assert rate("merge/topic/ties density 0.1 scale 2").per_unit == 300.0
    # Of a recipe that was never run, nor on any machine: as the others, within a factor of 10.
    for name in ("merge/topic/sum", "merge/topic/iso", "merge/topic/ties density 0.5 space knots"):
        assert rate(name).per_unit == pytest.approx(306 / 3)
        assert rate(name).error > OTHER_RECIPE > rate("merge/topic/mean").error
        assert rate(name).learnt
    # Where this machine made no merge at all, another's of the same recipe comes first.
    there = Rates(learn(merges), "new").step(step("merge/topic/iso", "merge"))
    assert (there.per_unit, there.drift > GUESS) == (0.5, True)
    assert there.error < OTHER_RECIPE


def test_a_first_guess_may_be_off_tenfold() -> None:
    rate = Rates(Experience(), "m").of("train", "topic")
    found = together([(rate, 1.0)] * 1000)
    assert (found.low, found.high) == (pytest.approx(100.0, rel=0.01), pytest.approx(1e4, rel=0.01))


def test_a_kind_that_nobody_heard_of_has_a_guess_too() -> None:
    assert Rates(Experience(), "m").of("distil", "topic").learnt is False


def test_two_workers_by_hand() -> None:
    first, second = work("a", 10), work("b", 30)
    last = work("c", 5, "merge", uses=Uses(adapters={"a": first.step.id, "b": second.step.id}))
    times = schedule([first, second, last], 2, None)
    assert times.wall.value == pytest.approx(35)  # 10 beside 30, then 5
    assert times.machine.value == pytest.approx(45 / 2)


def test_every_worker_loads_the_model_once() -> None:
    load = Rate(4.0, drift=0.0, error=0.0, scatter=0.0)
    four = [work(name, 10) for name in "abcd"]
    assert schedule(four, 2, load).wall.value == pytest.approx(24)  # two pairs after one load
    assert schedule(four, 2, load).machine.value == pytest.approx((40 + 8) / 2)
    assert schedule([work("m", 10, "merge")], 2, load).wall.value == pytest.approx(10)


def test_the_load_is_counted_when_the_ledger_knows_it() -> None:
    device = interval("x", "1", 1).device
    assert Rates(Experience(), device).load is None
    load = Rates(learn([interval(LOAD, "6", 0), interval(LOAD, "4", 0)]), device).load
    assert load is not None
    assert load.per_unit == pytest.approx(5)


def test_wall_time_is_as_unsure_as_its_critical_path() -> None:
    unsure = Rate(1.0, drift=0.0, error=0.5, scatter=0.0)
    short, long = Work(step("a"), unsure, 1.0), work("b", 100)
    times = schedule([short, long], 2, None)
    assert times.wall == Estimate(100.0, 100.0, 100.0)
    assert times.machine.high > times.machine.value


def test_one_artifact_by_two_names_is_made_once() -> None:
    one = work("train/t/en", 3.0)
    done = schedule([one, Work(one.step, SURE, 3.0)], 1, None)
    assert (done.wall.value, done.machine.value) == (3.0, 3.0)
