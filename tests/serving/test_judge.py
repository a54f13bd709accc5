"""The decision rule, on numbers whose answer is known on paper."""

from __future__ import annotations

import numpy as np
import pytest

from koinize.serving.judge import FLOOR, Hypothesis, distances, judge
from koinize.serving.prompts import Wording
from koinize.serving.weights import Weights

PROMPTS, TOKENS = 9, 4
RIGHT = Wording("right", "the prompt as in training", tuple((n, n) for n in range(PROMPTS)))
SECOND = Wording("bos", "a second BOS token", tuple((1, n, n) for n in range(PROMPTS)))
ADAPTER, BASE = Weights("adapter", "the adapter"), Weights("base", "the base model")
TWICE = Weights("scale", "twice the scale")
MINE, BARE = Hypothesis(ADAPTER, RIGHT), Hypothesis(BASE, RIGHT)
SCALED, DOUBLED = Hypothesis(TWICE, RIGHT), Hypothesis(ADAPTER, SECOND)


def level(value: float) -> np.ndarray:
    return np.full((PROMPTS, TOKENS), value)


OURS = {BARE: level(-2.0), MINE: level(-1.0), SCALED: level(-0.0), DOUBLED: level(-1.1)}


def found(value, counts=(None,) * PROMPTS, ours=OURS, expected="adapter"):
    answers = level(value) if isinstance(value, float) else value
    return judge(answers, counts, ours, expected)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(-1.0, "right"), (-2.0, "base"), (0.0, "scale"), (-1.1, "bos"), (-1.5, "unknown")],
)
def test_the_nearest_by_the_margin(value, verdict):
    assert found(value).verdict == verdict


def test_the_margin_is_four():
    """Between -1 and -1.1: at a fifth of the way the other is four times as far, at more less."""
    assert found(-1.0199).verdict == "right"
    assert found(-1.0201).verdict == "unknown"


def test_counts_tell_apart_what_the_numbers_do_not():
    assert found(-1.04, [2] * PROMPTS).verdict == "right"
    assert found(-1.04, [3] * PROMPTS).verdict == "bos"
    assert found(-1.04, [2] * PROMPTS).by_count
    assert found(-1.04, [5] * PROMPTS).verdict == "unknown"
    assert found(-1.0, [3] * PROMPTS).verdict == "right"  # the numbers speak before the counts


def test_the_share_of_the_change():
    """One token in four stays the base's: three quarters of the change are there."""
    answers = level(-1.0)
    answers[:, 0] = -2.0
    ours = {BARE: level(-2.0), MINE: level(-1.0)}
    assert found(answers, ours=ours).share == pytest.approx(0.75)
    assert found(answers, ours=ours).verdict == "unknown"  # 0.25 away, and 0.75: three times
    answers[::2, 0] = -1.0  # in every other prompt it is all there: 4 of 36 tokens are not
    assert found(answers, ours=ours).share == pytest.approx(8 / 9)
    assert found(answers, ours=ours).verdict == "partial"


def test_a_few_prompts_astray():
    answers = level(-1.0)
    answers[4] = -1.3
    ours = {BARE: level(-2.0), MINE: level(-1.0)}
    result = found(answers, ours=ours)
    assert (result.verdict, result.astray) == ("some", (4,))
    answers[4] = -1.2  # less than a quarter of what the adapter changes
    assert found(answers, ours=ours).verdict == "right"


def test_answers_of_other_prompts():
    draw = np.random.default_rng(0)
    mine = -draw.uniform(1, 9, (PROMPTS, TOKENS))
    ours = {MINE: mine, BARE: mine - draw.uniform(0, 3, mine.shape)}
    assert found(mine, ours=ours).verdict == "right"
    assert found(np.roll(mine, 1, axis=0), ours=ours).verdict == "shuffled"
    swapped = mine.copy()
    swapped[[2, 5]] = mine[[5, 2]]
    assert found(swapped, ours=ours).verdict != "right"


def test_the_base_may_be_what_is_expected():
    assert found(-2.0, expected="base").verdict == "right"
    assert found(-1.0, expected="base").verdict == "other"


def test_nothing_is_told_where_the_adapter_changes_nothing():
    result = found(-1.0, ours={MINE: level(-1.0), BARE: level(-1.0)})
    assert (result.verdict, result.effect, result.share) == ("unknown", 0.0, None)


def test_distances_count_what_is_named_and_forget_how_unlikely_the_unlikely_is():
    answers = np.array([[-1.0, np.nan, -3.0]])
    assert distances(answers, np.array([[-2.0, -50.0, -3.0]])) == pytest.approx(0.5)
    nobody = found(level(FLOOR - 500), ours={MINE: level(-900.0), BARE: level(-1.0)})
    assert nobody.verdict == "right"
