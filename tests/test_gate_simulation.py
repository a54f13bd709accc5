"""The simulation of benchmarks/ in small: its populations are as told, and the gate holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import gate_simulation as simulation


@pytest.mark.parametrize("kind", range(4))
def test_the_populations_lose_what_they_are_told_to(kind: int) -> None:
    one = simulation.KINDS[kind]
    ours, theirs = one.draw(np.random.default_rng(0), 200_000, -2.0)
    difference = one.metric.aggregate(ours.sum(axis=0)) - one.metric.aggregate(theirs.sum(axis=0))
    # The standard deviation of a row is 40 points at most: 4 sigma of the mean of 200,000.
    assert difference == pytest.approx(-2.0, abs=4 * 40 / math.sqrt(200_000))


def test_two_systems_of_one_accuracy_differ_in_16_percent_of_rows() -> None:
    systems = simulation.Systems(np.random.default_rng(0), 200_000)
    one, other = systems.answers(0.75), systems.answers(0.75)
    assert one.mean() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 200_000))
    assert (one != other).mean() == pytest.approx(0.16, abs=0.005)


def test_the_levels_of_lord_spend_5_percent() -> None:
    rule = simulation.LordPlusPlus()
    spent = 0.0
    for _ in range(200):
        spent += rule.level()
        rule.told(passed=False)
    assert 0.01 < spent < 0.025, "half of it, as long as nothing was found"


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(4))
def test_a_release_at_the_margin_is_rare(kind: int) -> None:
    share = simulation.releases_at_the_margin(simulation.KINDS[kind], 500, 200)
    # 2.5 %, and three standard errors of 200 releases.
    assert share <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 200)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 2, 3])
def test_equals_pass_at_the_rows_that_are_stated(kind: int) -> None:
    rows, share = simulation.power_at_stated_rows(simulation.KINDS[kind], 60)
    assert share >= 0.8 - 3 * math.sqrt(0.8 * 0.2 / 60)
    if kind == 0:  # 0.8 ** (1/5) = .9564: z = 1.7101; (1.96 + 1.7101)^2 x .15 x 10^4 / 4 x 1.1
        assert rows == pytest.approx(5_556, rel=0.02)


@pytest.mark.slow
def test_trying_again_does_not_work() -> None:
    budget = simulation.sequences(simulation.Budget, 150, 20)
    assert budget <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)
    assert simulation.sequences(simulation.Rule, 150, 20) > budget
