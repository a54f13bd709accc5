"""Accuracy by sum and by mean log-probability, and exact match."""

import pytest

from koinize.errors import InputError
from koinize.metrics import metrics, score

NORMALIZED = metrics.get("accuracy-normalized")

# The sum prefers the short option (-4 against -6), the mean the long one (-4 against -2).
ROW = {"key": "k", "gold": "long", "prediction": "short", "scores": [-4.0, -6.0], "lengths": [1, 3]}


def value(metric, *rows) -> float:
    return score(metric, rows, resamples=2).value


def test_accuracy_counts_hits() -> None:
    hit, miss = {**ROW, "prediction": "long"}, ROW
    assert value(metrics.get("accuracy"), hit, hit, hit, miss) == 75.0


def test_the_mean_can_choose_what_the_sum_does_not() -> None:
    assert value(metrics.get("accuracy"), ROW) == 0.0
    assert value(NORMALIZED.over(["short", "long"]), ROW) == 100.0


def test_labels_of_the_row_go_before_labels_of_the_task() -> None:
    rotated = {**ROW, "labels": ["short", "long"]}
    assert value(NORMALIZED.over(["long", "short"]), rotated) == 100.0


def test_labels_of_the_row_allow_a_prediction_made_by_another_rule() -> None:
    by_mean = {**ROW, "prediction": "long", "labels": ["short", "long"]}
    assert value(NORMALIZED, by_mean) == 100.0


def test_one_length_for_all_options_changes_nothing() -> None:
    row = {**ROW, "lengths": [3, 3]}
    assert value(NORMALIZED.over(["short", "long"]), row) == value(metrics.get("accuracy"), row)


@pytest.mark.parametrize(
    ("labels", "change"),
    [
        (["long", "short"], {}),  # another order than the scores: the best sum is not 'short'
        (["short"], {}),
        ([], {}),
        (["short", "long"], {"lengths": [1]}),
        (["short", "long"], {"lengths": [0, 3]}),
        (["short", "long"], {"scores": []}),
    ],
)
def test_scores_that_do_not_fit_the_labels_are_refused(labels, change) -> None:
    with pytest.raises(InputError) as refused:
        value(NORMALIZED.over(labels), {**ROW, **change})
    assert str(refused.value) == (
        "accuracy-normalized cannot match scores to labels in row 'k'; expected a score, a length "
        "above 0 and a label per option, in one order, and the best score at the prediction; "
        "give the row 'labels': the options' names as they were scored"
    )


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("Ein  Satz.\n", 100.0), ("Ein Satz", 0.0), ("ein Satz.", 0.0)],
)
def test_exact_match_forgives_white_space_only(prediction: str, expected: float) -> None:
    row = {"key": "k", "reference": "Ein Satz.", "prediction": prediction}
    assert value(metrics.get("exact-match"), row) == expected


def test_exact_match_knows_one_letter_in_two_encodings() -> None:
    row = {"key": "k", "reference": "f\u00fcr", "prediction": "fu\u0308r"}
    assert value(metrics.get("exact-match"), row) == 100.0
