"""Macro averages against arithmetic on paper and a slow version written label by label."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.digest import digest, short
from koinize.errors import InputError
from koinize.metrics import metrics, score

F1, PRECISION, RECALL = (metrics.get(name) for name in ("macro-f1", "precision", "recall"))


def rows(*pairs: str) -> list[dict[str, object]]:
    """One row per "gold prediction"."""
    split = [pair.split() for pair in pairs]
    return [{"key": str(i), "gold": g, "prediction": p} for i, (g, p) in enumerate(split)]


def value(metric, labels, found) -> float:
    return score(metric.over(labels), found, resamples=2).value


def obvious(found, labels) -> tuple[float, float, float]:
    """Macro precision, recall and F1 over the labels that have gold rows, by counting."""
    sums = [0.0, 0.0, 0.0]
    gold_labels = [label for label in labels if any(row["gold"] == label for row in found)]
    for label in gold_labels:
        tp = sum(row["gold"] == label == row["prediction"] for row in found)
        fp = sum(row["gold"] != label == row["prediction"] for row in found)
        fn = sum(row["gold"] == label != row["prediction"] for row in found)
        precision = tp / (tp + fp) if tp + fp else 0.0
        recall = tp / (tp + fn)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        sums = [total + part for total, part in zip(sums, (precision, recall, f1), strict=True)]
    return tuple(100 * total / len(gold_labels) for total in sums)


def test_two_labels_on_paper() -> None:
    found = rows("a a", "a a", "a b", "b b", "b a", "b a")
    # a: tp 2, fp 2, fn 1. b: tp 1, fp 1, fn 2.
    assert value(PRECISION, "ab", found) == pytest.approx(100 * (2 / 4 + 1 / 2) / 2)
    assert value(RECALL, "ab", found) == pytest.approx(100 * (2 / 3 + 1 / 3) / 2)
    assert value(F1, "ab", found) == pytest.approx(100 * (4 / 7 + 2 / 5) / 2)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=30)
)
def test_equal_to_counting(pairs) -> None:
    found = rows(*(f"{gold} {prediction}" for gold, prediction in pairs))
    ours = [value(metric, "abcd", found) for metric in (PRECISION, RECALL, F1)]
    # About 30 additions and divisions of numbers up to 100.
    assert ours == pytest.approx(obvious(found, "abcd"), abs=30 * 100 * 2**-53)


def test_a_label_that_is_never_predicted_scores_0() -> None:
    found = rows("a a", "b a")
    assert value(PRECISION, "ab", found) == pytest.approx(25.0)  # (1/2 + 0) / 2
    assert value(F1, "ab", found) == pytest.approx(100 / 3)  # (2/3 + 0) / 2


def test_a_label_without_gold_rows_is_left_out_predicted_or_not() -> None:
    assert value(F1, "abc", rows("a a", "b b")) == 100.0
    stray = rows("a a", "b b", "a c")
    # a: tp 1, fn 1; b: perfect; c has no gold row, and its prediction cost a its recall.
    assert value(F1, "abc", stray) == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert value(PRECISION, "abc", stray) == 100.0
    assert value(RECALL, "abc", stray) == 75.0


def test_the_order_of_labels_is_no_part_of_the_recipe() -> None:
    assert F1.over(["b", "a"]) == F1.over(["a", "b"])
    identity = short(digest(["a", "b"]))
    assert F1.over("ab").signature() == f"macro-f1|avg:macro|labels:2-{identity}|absent:skip|v:1"
    assert F1.over("ab").signature() != F1.over("ac").signature()


@pytest.mark.parametrize(("pair", "column"), [("x a", "gold"), ("a x", "prediction")])
def test_a_label_outside_the_set_is_refused(pair: str, column: str) -> None:
    with pytest.raises(InputError) as refused:
        value(F1, "ab", rows("a a", pair))
    assert str(refused.value) == (
        f"macro-f1 met label 'x' as {column} of row '1'; expected one of: a, b; "
        "give the metric the whole label set of the task"
    )


def test_without_a_label_set_nothing_is_scored() -> None:
    with pytest.raises(InputError) as refused:
        score(F1, rows("a a"))
    assert str(refused.value) == (
        "macro-f1 met label 'a' as gold of row '0'; expected one of: (no label set was given); "
        "give the metric the whole label set of the task"
    )


def test_the_interval_agrees_with_a_bootstrap_that_draws_rows_one_by_one() -> None:
    draw = random.Random(5)
    found = rows(*(f"{draw.choice('abc')} {draw.choice('aabc')}" for _ in range(80)))
    slow = sorted(obvious(draw.choices(found, k=80), "abc")[2] for _ in range(2_000))
    fast = score(F1.over("abc"), found)
    # A percentile of 2,000 draws with deviation s wanders by about s x sqrt(.025 x .975 / 2000) /
    # .0584 (the normal density at 2.5 %) = .06 s; s is about 5.3 points; two of them, 4 sigma.
    tolerance = 4 * 2**0.5 * 0.06 * 5.3
    assert fast.low == pytest.approx(slow[50], abs=tolerance)
    assert fast.high == pytest.approx(slow[1950], abs=tolerance)
