"""What Optuna proposes in a space: the same for the same trials, inside of it, nothing twice."""

from __future__ import annotations

import pytest

from koinize.digest import digest
from koinize.search.halving import BUDGET, rounds
from koinize.search.proposals import Taken, Trial, over_budget, propose
from koinize.search.space import Space

pytest.importorskip("optuna", reason="the extra koinize[search] is not installed")

SPACE = Space(
    recipe=("ties", "sum"),
    density={"low": 0.3, "high": 1.0},
    scale={"low": 0.25, "high": 4.0},
    weights={"low": 0.5, "high": 2.0},
    trials=32,
)
LANGUAGES = ("de", "en")


def told(points: list, best: float) -> list[Trial]:
    """As if the best were at this scale."""
    order = sorted(points, key=lambda one: abs(one["scale"] - best))
    return [Trial(one, order.index(one)) for one in points]


def test_the_same_trials_lead_to_the_same_points_and_another_seed_to_others() -> None:
    first = propose(SPACE, LANGUAGES, [], 8)
    assert propose(SPACE, LANGUAGES, [], 8) == first
    other = SPACE.model_copy(update={"seed": 1})
    assert propose(other, LANGUAGES, [], 8) != first
    trials = told(first, 2.0)
    assert propose(SPACE, LANGUAGES, trials, 8) == propose(SPACE, LANGUAGES, trials, 8)


def test_points_lie_inside_and_have_what_their_recipe_reads() -> None:
    for point in propose(SPACE, LANGUAGES, [], 32):
        assert 0.25 <= point["scale"] <= 4.0
        assert ("density" in point) == (point["recipe"] == "ties")
        merge = SPACE.settings(point, LANGUAGES)
        assert merge.scale == point["scale"]
        assert {merge.weights[one] for one in LANGUAGES} == {
            point["weight de"],
            point["weight en"],
        }


def test_what_was_good_is_looked_at_more_closely() -> None:
    """After 16 random points, the next ones lie nearer to the best scale, in the median."""
    first = propose(SPACE, LANGUAGES, [], 16)
    for best in (0.5, 3.0):
        then = propose(SPACE, LANGUAGES, told(first, best), 16)
        near, nearer = (
            sorted(abs(one["scale"] - best) for one in points)[8] for points in (first, then)
        )
        assert nearer < near


def test_nothing_is_proposed_that_is_there_already() -> None:
    small = Space(recipe=("sum",), scale=(1.0, 2.0, 3.0))
    known = digest(small.settings({"recipe": "sum", "scale": 2.0}, ()).identity())
    found = propose(small, (), [], 8, [known])
    assert sorted(one["scale"] for one in found) == [1.0, 3.0]


def test_values_that_are_listed_twice_are_one() -> None:
    assert Space(recipe=("sum",), scale=(1.0, 2.0, 1.0)).scale == (1.0, 2.0)
    with pytest.raises(ValueError, match="nothing varies in this space"):
        Space(recipe=("sum",), scale=(1.0, 1.0))


def test_a_profile_multiplies_the_scale() -> None:
    space = Space(recipe=("sum",), scale=(2.0,), modules={"layers.0.*": {"low": 0.5, "high": 2}})
    point = {"recipe": "sum", "scale": 2.0, "modules layers.0.*": 1.5}
    assert space.settings(point, ()).overrides == {"layers.0.*": {"scale": 3.0}}


def test_the_trials_come_in_four_rounds() -> None:
    assert [rounds(64), rounds(9)] == [(16, 16, 16, 16), (3, 3, 3)]


def test_a_budget_counts_what_halving_will_take() -> None:
    """10 candidates took 10 h of merging and 1 h of scoring 1 % of the rows, so scoring one on all
    is 10 h. 5 more: 5.5 h; halving 15, of which each answered 1 %: (4 - .15) x 10 h.
    """
    taken = Taken(10, 36_000.0, 3_600.0)
    assert BUDGET == 4
    expected = 11 + 5.5 + 38.5
    enough, less = (
        SPACE.model_copy(update={"hours": one}) for one in (expected + 0.01, expected - 0.01)
    )
    assert over_budget(enough, taken, 10, 5, 0.01, 0.0) == ""
    assert over_budget(less, taken, 10, 5, 0.01, 0.0) == (
        "more would take 55 hours, and 54.99 are allowed"
    )
    dear = SPACE.model_copy(update={"cost": 100})
    assert over_budget(dear, taken, 10, 5, 0.01, 2.0) == (
        "more would cost 1.1e+02, and 100 is allowed"
    )
    assert over_budget(less, Taken(0, 0.0, 0.0), 0, 5, 0.01, 0.0) == ""
