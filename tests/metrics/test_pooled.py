"""The mean of the languages' differences: against one language, paper, and a slow oracle."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from koinize.gate import compare, compare_mean
from koinize.metrics import metrics, paired, pooled

ACCURACY = metrics.get("accuracy")
RESAMPLES = 10_000


def sides(n, lost, won, name="{}"):
    """Candidate and reference with n rows, of which so many are lost and won."""

    def rows(right):
        return [
            {"key": name.format(i), "gold": "a", "prediction": "a" if hit else "b"}
            for i, hit in enumerate(right)
        ]

    both = n - lost - won
    return (
        rows([True] * both + [False] * lost + [True] * won),
        rows([True] * both + [True] * lost + [False] * won),
    )


def over(**languages):
    """Language -> rows of each side, from language -> (n, lost, won) with keys of its own."""
    made = {one: sides(*counts, name=one + "{}") for one, counts in languages.items()}
    return tuple({one: pair[side] for one, pair in made.items()} for side in (0, 1))


def keys(rows):
    return {language: [row["key"] for row in found] for language, found in rows.items()}


def test_one_language_is_that_language():
    ours, theirs = over(de=(100, 7, 3))
    mean = compare_mean(ours, theirs, ACCURACY, 2.0)
    alone = compare(ours["de"], theirs["de"], ACCURACY, 2.0)
    for name in ("verdict", "difference", "low", "high", "n", "p_value", "p_better", "error"):
        assert getattr(mean, name) == getattr(alone, name), name
    assert "mean:1 languages" in mean.signature


def test_the_mean_and_its_error_on_paper():
    ours, theirs = over(de=(400, 40, 20), ja=(100, 15, 5))
    found = pooled(ACCURACY, ours, theirs, keys(ours), resamples=RESAMPLES)
    assert found.n == 500
    assert found.widening == 1
    assert found.observed == pytest.approx((-5.0 + -10.0) / 2)

    def variance(n, lost, won):
        """Of a mean of n draws from n + 2 rows, a loss and a win among them added."""
        down, up = (lost + 1) / (n + 2), (won + 1) / (n + 2)
        return 100**2 * (down + up - (up - down) ** 2) / n

    expected = math.sqrt(variance(400, 40, 20) + variance(100, 15, 5)) / 2
    # The standard deviation of 10,000 draws strays by 1 / sqrt(2 x 10,000) = .7 %.
    assert found.resampled.std() == pytest.approx(expected, rel=4 * 0.007)


def test_losses_that_no_language_shows_alone_are_shown_by_their_mean():
    ours, theirs = over(**dict.fromkeys(("de", "en", "fr", "ja", "zh"), (42, 6, 1)))
    alone = compare(ours["de"], theirs["de"], ACCURACY, 2.0)
    mean = compare_mean(ours, theirs, ACCURACY, 2.0)
    assert alone.verdict == "inconclusive"
    assert mean.verdict == "worse"
    assert mean.difference == pytest.approx(-100 * 5 / 42)


def test_translations_of_one_example_count_once():
    """Five languages with the same keys and the same losses know what one of them knows."""
    pairs = {one: sides(200, 20, 8) for one in ("de", "en", "fr", "ja", "zh")}
    ours, theirs = ({one: pair[side] for one, pair in pairs.items()} for side in (0, 1))
    found = pooled(ACCURACY, ours, theirs, keys(ours), resamples=RESAMPLES)
    alone = paired(ACCURACY, ours["de"], theirs["de"], resamples=RESAMPLES)
    assert found.widening == pytest.approx(math.sqrt(5))
    assert found.resampled.std() == pytest.approx(alone.resampled.std(), rel=4 * 0.007)
    assert found.error_at(-2.0) == pytest.approx(alone.error_at(-2.0), rel=1e-9)


def test_where_one_wins_what_another_loses_nothing_is_gained():
    """Errors that cancel would make the interval narrower; they are taken as independent."""
    ours, theirs = sides(200, 20, 0)
    mixed, swapped = {"de": ours, "en": theirs}, {"de": theirs, "en": ours}
    found = pooled(ACCURACY, mixed, swapped, keys(mixed), resamples=RESAMPLES)
    assert found.widening == 1
    assert found.observed == 0


def test_equal_answers_to_shared_keys_count_once():
    pairs = {one: sides(100, 0, 0) for one in ("de", "en")}
    ours, theirs = ({one: pair[side] for one, pair in pairs.items()} for side in (0, 1))
    assert pooled(ACCURACY, ours, theirs, keys(ours), resamples=10).widening == pytest.approx(
        math.sqrt(2)
    )


@pytest.mark.parametrize("bound", [-4.0, 0.0, 3.0])
def test_the_error_at_a_bound_is_that_of_the_nearest_populations(bound):
    """Nearest in the sum of Kullback-Leibler divergences, rows counted: found by a solver."""
    ours, theirs = over(de=(60, 9, 3), ja=(30, 2, 4))
    found = pooled(ACCURACY, ours, theirs, keys(ours), resamples=10)
    points = np.array([-100.0, 0.0, 100.0])
    sizes = np.array([60, 30])
    shares = np.array([[10, 48, 4], [3, 24, 5]]) / (sizes[:, None] + 2)

    def divergence(flat):
        q = flat.reshape(2, 3)
        return float((sizes[:, None] * q * np.log(q / shares)).sum())

    solved = minimize(
        divergence,
        shares.ravel(),
        bounds=[(1e-9, 1)] * 6,
        constraints=[
            {"type": "eq", "fun": lambda flat: flat.reshape(2, 3).sum(axis=1) - 1},
            {"type": "eq", "fun": lambda flat: (flat.reshape(2, 3) @ points).mean() - bound},
        ],
        options={"ftol": 1e-13, "maxiter": 500},
    )
    q = solved.x.reshape(2, 3)
    variance = (q @ points**2 - (q @ points) ** 2) / sizes
    assert found.error_at(bound) == pytest.approx(math.sqrt(variance.sum()) / 2, rel=1e-4)


def test_beyond_every_population_there_is_no_error():
    ours, theirs = over(de=(50, 1, 1), ja=(50, 1, 1))
    found = pooled(ACCURACY, ours, theirs, keys(ours), resamples=10)
    assert found.error_at(-100.0) == math.inf
