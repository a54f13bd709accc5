"""How often each candidate would have won."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from koinize.metrics import metrics
from koinize.search.luck import RESAMPLES, chances

ACCURACY = metrics.get("accuracy")


def rows(right: np.ndarray) -> list[dict[str, str]]:
    return [{"gold": "1", "prediction": str(int(one))} for one in right]


def test_two_candidates_against_the_binomial() -> None:
    """a wins w rows that b loses, b wins l; a resample has each of them some number of times, and
    the difference of the numbers is nearly normal with mean w - l and variance w + l - (w - l)^2/n.
    """
    n, w, l = 400, 24, 16  # noqa: E741
    a, b = np.ones(n, dtype=int), np.ones(n, dtype=int)
    b[:w], a[w : w + l] = 0, 0
    found = chances(ACCURACY, {"a": {"de": rows(a)}, "b": {"de": rows(b)}})
    spread = math.sqrt(w + l - (w - l) ** 2 / n)
    expected = NormalDist(w - l, spread).cdf(0.0)
    error = math.sqrt(expected * (1 - expected) / RESAMPLES)
    assert found["a"] + found["b"] == pytest.approx(1.0)
    assert abs(found["b"] - expected) < 4 * error + 0.01  # .01: a lattice, and equals that share


def test_languages_count_alike_and_rows_are_the_same_for_all() -> None:
    random = np.random.default_rng(3)
    right = random.uniform(size=60) < 0.5
    same = {"de": rows(right), "en": rows(~right)}
    found = chances(ACCURACY, {"a": same, "b": same, "c": same})
    assert found == pytest.approx(dict.fromkeys("abc", 1 / 3))  # equal in every resample
    worse = {"de": rows(right), "en": rows(np.zeros(60))}
    assert chances(ACCURACY, {"a": same, "b": worse}) == pytest.approx({"a": 1.0, "b": 0.0})


def test_it_is_the_same_every_time() -> None:
    random = np.random.default_rng(4)
    some = {
        name: {"de": rows(random.uniform(size=50) < 0.6), "en": rows(random.uniform(size=40) < 0.6)}
        for name in "abcd"
    }
    assert chances(ACCURACY, some) == chances(ACCURACY, some)
