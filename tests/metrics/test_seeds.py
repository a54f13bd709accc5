"""Seeds as the outer level: Student's t by tables, an interval by hand and by a slow oracle."""

from __future__ import annotations

import math
from statistics import NormalDist, stdev

import numpy as np
import pytest

from koinize.errors import InputError
from koinize.gate import compare, compare_mean
from koinize.metrics import metrics, paired
from koinize.metrics._seeds import seed_error, student

ACCURACY = metrics.get("accuracy")
Row = dict[str, str]


def rows(*right: bool) -> list[Row]:
    return [
        {"key": f"k{n}", "gold": "a", "prediction": "a" if one else "b"}
        for n, one in enumerate(right)
    ]


def answers(generator: np.random.Generator, n: int, share: float) -> list[Row]:
    return rows(*(generator.random(n) < share))


@pytest.mark.parametrize(
    ("degrees", "upper"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (19, 2.0930)],
)
def test_students_t_is_that_of_the_tables(degrees: int, upper: float) -> None:
    """2.5 % of the draws are beyond the table's value, which has three decimals, on each side."""
    found = student(degrees, 10_000, 7)
    assert int((found > upper + 0.002).sum()) <= 250 <= int((found > upper - 0.002).sum())
    assert int((found < -upper - 0.002).sum()) <= 250 <= int((found < -upper + 0.002).sum())


def test_draws_of_t_are_its_quantiles_in_another_order() -> None:
    found = student(2, 1_000, 7)
    # With two degrees of freedom the quantile of p is (2p - 1) / sqrt(2p (1 - p)).
    shares = (np.arange(1_000) + 0.5) / 1_000
    wanted = (2 * shares - 1) / np.sqrt(2 * shares * (1 - shares))
    assert sorted(found) == pytest.approx(wanted)
    assert list(found) != sorted(found)
    assert list(found) == list(student(2, 1_000, 7))


def test_what_seeds_add_is_the_standard_error_of_their_mean() -> None:
    # 1, 3, 8: mean 4, squares 9 + 1 + 16 = 26, / 2 = 13, / 3.
    assert seed_error(np.array([1.0, 3.0, 8.0])) == pytest.approx(math.sqrt(13 / 3))
    assert seed_error(np.array([1.0])) == 0


def test_the_difference_is_the_mean_over_seeds() -> None:
    # 4 rows. Seed 0: 3 right against 2, +25; seed 1: 1 against 2, -25; seed 2: 4 against 1, +75.
    first = rows(True, True, True, False), rows(True, True, False, False)
    further = [
        (rows(True, False, False, False), rows(True, True, False, False)),
        (rows(True, True, True, True), rows(True, False, False, False)),
    ]
    found = paired(ACCURACY, *first, further=further, resamples=200)
    assert list(found.by_seed) == [25.0, -25.0, 75.0]
    assert found.observed == 25.0
    assert found.seed_error == pytest.approx(50 / math.sqrt(3))  # their standard deviation is 50


def test_both_levels_are_drawn_as_a_slow_oracle_does() -> None:
    generator, n = np.random.default_rng(1), 60
    sides = [(answers(generator, n, 0.8), answers(generator, n, 0.7)) for _ in range(3)]
    found = compare(*sides[0], ACCURACY, 2.0, further=sides[1:])
    # Every row's difference in the mean over seeds, and the two pairs that the guard adds.
    gaps = [
        sum(100.0 * ((a[i]["prediction"] == "a") - (b[i]["prediction"] == "a")) for a, b in sides)
        / len(sides)
        for i in range(n)
    ]
    largest = max(map(abs, gaps))
    population = [*gaps, largest, -largest]
    by_seed = [
        100.0
        * (sum(x["prediction"] == "a" for x in a) - sum(x["prediction"] == "a" for x in b))
        / n
        for a, b in sides
    ]
    spread = stdev(by_seed) / math.sqrt(3)
    drawn = []
    for _ in range(4_000):
        mean = sum(population[i] for i in generator.integers(len(population), size=n)) / n
        # Student's t as the ratio that defines it.
        normal, square = generator.normal(), (generator.normal(size=2) ** 2).sum() / 2
        drawn.append(mean + spread * normal / math.sqrt(square))
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.by_seed == pytest.approx(by_seed)
    assert found.difference == pytest.approx(sum(by_seed) / 3)
    # Four standard errors of the oracle's percentiles: sqrt(p q / 4000) over the density there,
    # which for t with 2 degrees of freedom at the 2.5th is 0.0088 per scale; rows only smooth it.
    tolerance = 4 * math.sqrt(0.025 * 0.975 / 4_000) / 0.0088 * spread
    assert (found.low, found.high) == pytest.approx((low, high), abs=tolerance)
    assert found.signature.startswith("accuracy|paired:key|seeds:3|outer:student-t|guard:")


def test_with_equal_seeds_the_outer_level_changes_nothing() -> None:
    generator = np.random.default_rng(2)
    for metric in (ACCURACY, metrics.get("macro-f1").over(["a", "b"])):
        side = answers(generator, 50, 0.8), answers(generator, 50, 0.7)
        one = compare(*side, metric, 2.0)
        four = compare(*side, metric, 2.0, further=[side] * 3)
        assert len(four.by_seed) == 4
        for field in ("difference", "low", "high", "p_value", "p_better", "p_worse", "error"):
            assert getattr(four, field) == pytest.approx(getattr(one, field), rel=1e-9), field
        assert four.verdict == one.verdict


def test_over_languages_a_seed_is_one_for_all_of_them() -> None:
    # What seed 1 wins in both languages it wins in the mean: 100, 0 and -100 / 0, 0, 0.
    good, bad = rows(*[True] * 40), rows(*[False] * 40)
    alike = {one: [(good, bad), (bad, bad)] for one in ("de", "en")}
    apart = {"de": [(good, bad), (bad, good)], "en": [(bad, good), (good, bad)]}
    first = {"de": bad, "en": bad}
    together = compare_mean(first, first, ACCURACY, 2.0, further=alike)
    against = compare_mean(first, first, ACCURACY, 2.0, further=apart)
    assert together.by_seed == pytest.approx((0, 100, 0))
    assert against.by_seed == pytest.approx((0, 0, 0))
    assert together.high - together.low == 200 > against.high - against.low


def test_the_score_test_knows_seeds_where_no_resample_reaches() -> None:
    # 5 points won by either seed but for 1 point: far from -2 by rows, not by a t of one degree.
    n = 1_000
    base = rows(*[False] * n)
    sides = [(rows(*[True] * won, *[False] * (n - won)), base) for won in (60, 40)]
    one = compare(*sides[0], ACCURACY, 2.0, resamples=500)
    two = compare(*sides[0], ACCURACY, 2.0, resamples=500, further=sides[1:])
    assert one.verdict == "better"
    # Mean 5, standard error of seeds 1: -2 is 7 away, and P(t_1 > 7) = atan(1 / 7) / pi = 4.5 %.
    assert two.p_value == pytest.approx(math.atan(1 / 7) / math.pi, abs=0.01)
    assert (two.verdict, two.rows_needed) == ("inconclusive", None)
    assert two.error == pytest.approx(math.hypot(0.7, 1.0), abs=0.2)
    assert NormalDist().cdf(-7 / 0.7) < 1e-20


def test_further_seeds_answer_the_same_rows() -> None:
    side = rows(True, True), rows(True, False)
    with pytest.raises(InputError, match="1 rows have no partner"):
        compare(*side, ACCURACY, 2.0, further=[(rows(True), rows(True))])
