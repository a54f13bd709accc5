"""The line search for a scale: where it goes, when it ends, and how far it believes dev."""

from __future__ import annotations

import math

import numpy as np
import pytest

from koinize.metrics import metrics
from koinize.search.evidence import Evidence, by_likelihood, by_metric, likelihoods, points
from koinize.search.line import decide, first

ACCURACY = metrics.get("accuracy")
LABELS = ("good", "bad")


def rows(right: int, n: int, scores: tuple[float, float] | None = None) -> list[dict]:
    """n rows whose gold label is `good`, the first `right` of them answered so."""
    more = {"scores": list(scores)} if scores else {}
    return [
        {"key": str(i), "gold": "good", "prediction": "good" if i < right else "bad", **more}
        for i in range(n)
    ]


def two(right: int, n: int, **more) -> dict[str, list[dict]]:
    """The same in two languages, whose rows are no translations of one another."""
    return {
        one: [{**row, "key": f"{one} {row['key']}"} for row in rows(right, n, **more)]
        for one in ("de", "en")
    }


def test_points_are_the_mean_over_languages() -> None:
    found = points(ACCURACY, {"de": rows(1, 4), "en": rows(2, 2)})
    assert found == pytest.approx((25 + 100) / 2)


def test_evidence_is_the_mean_difference_and_its_standard_error() -> None:
    ours, theirs = {"de": rows(300, 400)}, {"de": rows(260, 400)}
    found = by_metric(ACCURACY, ours, theirs)
    assert found.difference == pytest.approx(10.0)
    # 40 of 400 rows are won and one more win and loss are assumed: a share p of wins near .1 has
    # sqrt(p (1 - p) / n) = 1.5 points, the guard makes it a little more.
    assert 1.4 < found.error < 1.8
    half = by_metric(ACCURACY, two(300, 400), two(260, 400))
    assert half.error == pytest.approx(found.error / math.sqrt(2), rel=1e-3)
    both = by_metric(ACCURACY, ours | {"en": rows(5, 400)}, theirs | {"en": rows(5, 400)})
    assert both.difference == pytest.approx(5.0)


def test_likelihood_is_that_of_the_softmax_over_the_labels() -> None:
    ours, theirs = {"de": rows(2, 2, (0.0, -3.0))}, {"de": rows(2, 2, (-1.0, -1.0))}
    found = by_likelihood(LABELS, ours, theirs)
    assert found is not None
    assert found.difference == pytest.approx(math.log(2) - math.log1p(math.exp(-3.0)))
    assert by_likelihood((), ours, theirs) is None  # options that differ from row to row
    assert by_likelihood(LABELS, {"de": rows(1, 2)}, {"de": rows(1, 2)}) is None  # texts


@pytest.mark.parametrize(
    ("difference", "error", "share"), [(2.0, 1.0, 0.75), (1.0, 1.0, 0.0), (0.5, 1.0, 0.0)]
)
def test_what_is_believed_shrinks_with_the_noise(difference, error, share) -> None:
    assert Evidence(difference, error).share == pytest.approx(share)


def test_it_begins_with_the_stated_scale_and_its_neighbours() -> None:
    assert first(1.0) == (0.707, 1.0, 1.41)
    assert first(-2.0) == (-2.83, -2.0, -1.41)
    assert first(1.0, (1.5, 2.0)) == (1.0, 1.5, 2.0)
    assert first(1.0, (1.0,)) == first(1.0)


def test_it_goes_on_past_an_end_that_is_best_until_one_is_not() -> None:
    seen = {0.707: two(500, 1000), 1.0: two(600, 1000), 1.41: two(700, 1000)}
    assert decide(ACCURACY, LABELS, 1.0, seen).next == (2.0,)
    seen[2.0] = two(800, 1000)
    assert decide(ACCURACY, LABELS, 1.0, seen).next == (2.83,)
    seen[2.83] = two(700, 1000)
    found = decide(ACCURACY, LABELS, 1.0, seen)
    assert (found.lead, found.by, found.next) == (2.0, "accuracy", ())
    # 20 points, standard error .9: all but .2 % of it is believed, and 2^.998 is 1.997.
    assert found.evidence.difference == pytest.approx(20.0)
    assert found.evidence.error == pytest.approx(0.9, abs=0.01)
    assert found.found == 2.0


def test_it_goes_down_too_and_ends_somewhere() -> None:
    seen = {1.0: two(600, 1000), 1.41: two(500, 1000), 0.707: two(650, 1000)}
    assert decide(ACCURACY, LABELS, 1.0, seen).next == (0.5,)
    farthest = {2.0 ** (k / 2): two(600 + 10 * k, 1000) for k in range(9)}
    assert decide(ACCURACY, LABELS, 1.0, farthest).next == ()


def test_the_stated_scale_stays_where_dev_cannot_tell() -> None:
    seen = {0.707: two(10, 20), 1.0: two(12, 20), 1.41: two(13, 20), 2.0: two(12, 20)}
    found = decide(ACCURACY, LABELS, 1.0, seen)
    assert (found.by, found.found, found.lead) == ("", 1.0, 1.41)
    same = {0.707: two(12, 20), 1.0: two(12, 20), 1.41: two(12, 20)}
    assert decide(ACCURACY, LABELS, 1.0, same).found == 1.0


def test_fewer_rows_are_believed_less() -> None:
    def found(n: int) -> float:
        seen = {
            0.707: two(n * 5 // 10, n),
            1.0: two(n * 6 // 10, n),
            1.41: two(n * 7 // 10, n),
            2.0: two(n * 6 // 10, n),
        }
        scale = decide(ACCURACY, LABELS, 1.0, seen).found
        assert scale is not None
        return scale

    assert 1.0 < found(20) < found(100) < found(1000) <= 1.41


def test_likelihood_decides_where_the_metric_cannot() -> None:
    random = np.random.default_rng(0)

    def scored(margin: float) -> dict[str, list[dict]]:
        made = two(15, 20)
        for one in (row for some in made.values() for row in some):
            one["scores"] = [margin + random.normal(scale=0.01), 0.0]
        return made

    seen = {0.707: scored(0.1), 1.0: scored(0.5), 1.41: scored(0.9), 2.0: scored(0.6)}
    found = decide(ACCURACY, LABELS, 1.0, seen)
    assert (found.by, found.lead) == ("nll", 1.41)
    assert 1.3 < found.found <= 1.41
    for row in seen[1.41]["de"] + seen[1.41]["en"]:  # surer of itself, and wrong
        row["prediction"] = "bad"
    assert decide(ACCURACY, LABELS, 1.0, seen).by == ""


def test_with_pmi_the_likelihood_is_of_what_decides():
    """Scores 2 and 0, of which 1.5 and -.5 come without a prompt: .5 and .5, so log 2."""
    row = {"key": "a", "gold": "good", "prediction": "good", "scores": [2.0, 0.0]}
    (raw,) = likelihoods(["good", "bad"], [row])
    assert raw == pytest.approx(math.log(1 + math.exp(-2)))
    (decides,) = likelihoods(["good", "bad"], [{**row, "unconditional": [1.5, -0.5]}])
    assert decides == pytest.approx(math.log(2))
