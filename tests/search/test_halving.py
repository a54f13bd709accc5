"""Successive halving: what it costs, who goes on, and what it loses by not scoring everything."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.halving_simulation import KINDS, simulated
from koinize.metrics import metrics
from koinize.search.evidence import Rows
from koinize.search.halving import BUDGET, part, ranked, rungs

ACCURACY = metrics.get("accuracy")


@pytest.mark.parametrize("candidates", [5, 6, 8, 17, 64, 100, 1000])
def test_it_costs_no_more_than_its_budget_and_leaves_one(candidates: int) -> None:
    alive, before, cost = candidates, 0.0, 0.0
    for rung in rungs(candidates):
        assert before <= rung.share <= 1.0
        assert rung.keep == (alive + 1) // 2
        cost += alive * (rung.share - before)
        alive, before = rung.keep, rung.share
    assert alive == 1
    assert cost <= BUDGET + 1e-9
    assert cost > 0.7 * BUDGET


def test_few_candidates_need_no_rungs() -> None:
    assert rungs(4) == ()


def test_the_parts_of_the_languages_add_up_to_the_share() -> None:
    for share in np.random.default_rng(0).uniform(size=100):
        parts = [part(20, share, place, 5) for place in range(5)]
        assert sum(parts) == math.floor(share * 100)  # Hermite's identity
        assert max(parts) - min(parts) <= 1
    assert [part(7, 1.0, place, 3) for place in range(3)] == [7, 7, 7]


def rows(right: list[int], scores: list[float] | None = None) -> dict[str, list[dict]]:
    """The margin by which the gold label leads, row by row, where there are scores."""
    made = [
        {"key": str(i), "gold": "1", "prediction": str(one)}
        | ({"scores": [0.0, scores[i]]} if scores else {})
        for i, one in enumerate(right)
    ]
    return {"de": made}


def test_likelihood_counts_at_first_and_not_at_last() -> None:
    """75, 50 and 25 points are 1.22, 0 and -1.22 standard deviations from their mean. The losses of
    a row are log(1 + exp(-margin)), and at most 3: in the mean 1.23, .40 and .57, which is 1.39,
    -.94 and -.45. At 1 % of the rows the first has 1.22 - 1.98 x 1.39 = -1.53, the second 1.86 and
    the third -1.22 + 1.98 x .45 = -.33; at 60 % it is .11, .75 and -.86.
    """
    candidates = {
        "a": rows([1, 1, 0, 1], [0.1, 0.1, -9.0, 0.1]),
        "b": rows([1, 1, 0, 0], [3.0, 3.0, -0.1, -0.1]),
        "c": rows([0, 0, 0, 1], [-0.1, -0.1, -0.1, 3.0]),
    }

    def order(labels: tuple[str, ...], share: float) -> str:
        return "".join(one.candidate for one in ranked(ACCURACY, labels, candidates, share))

    assert order(("0", "1"), 0.01) == "bca"
    assert order(("0", "1"), 0.6) == "bac"
    assert order(("0", "1"), 1.0) == "abc"
    assert order((), 0.01) == "abc"


def test_equals_stay_in_their_order() -> None:
    same = {name: rows([1, 0]) for name in "cab"}
    assert [one.candidate for one in ranked(ACCURACY, (), same, 0.1)] == ["c", "a", "b"]


@pytest.mark.slow
def test_it_ends_within_half_a_point_of_scoring_everything() -> None:
    """Benchmarks/results/halving_simulation.md has the same over more sets, and other kinds."""
    for kind in ("grid", "alike"):
        found = simulated(KINDS[kind], rows=1000, sets=120, with_labels=True)
        assert found.cost <= BUDGET
        assert found.loss < 0.5  # .29 and .24 over 300 sets; the standard error over 120 is .07
        assert found.regret > 0.3  # what scoring everything misses the best by: .43 and .61


def test_tempered_the_nll_does_not_punish_confidence() -> None:
    """Twice the scores are the same answers, and at twice the temperature the same NLL."""

    def rows(factor: float) -> Rows:
        margins = [1.0, 2.0, -0.5, 3.0, -1.0, 0.5]
        return {
            "en": [
                {
                    "key": str(n),
                    "gold": "1",
                    "prediction": str(int(one > 0)),
                    "scores": [0, one * factor],
                }
                for n, one in enumerate(margins)
            ]
        }

    candidates = {"sure": rows(2.0), "plain": rows(1.0)}
    assert ranked(metrics.get("accuracy"), ("0", "1"), candidates, 0.1)[0].candidate == "plain"
    tempered = ranked(metrics.get("accuracy"), ("0", "1"), candidates, 0.1, tempered=True)
    assert [one.candidate for one in tempered] == ["sure", "plain"]  # equals, as listed
    assert tempered[0].nll == pytest.approx(tempered[1].nll)


def test_who_was_asked_nothing_is_ranked_as_listed() -> None:
    found = ranked(metrics.get("accuracy"), ("0", "1"), {"b": {}, "a": {}}, 0.01)
    assert [(one.candidate, one.points, one.nll) for one in found] == [
        ("b", 0, None),
        ("a", 0, None),
    ]
