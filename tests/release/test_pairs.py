"""Rows of two releases that are one question."""

from types import SimpleNamespace

import pytest

from koinize.metrics import metrics
from koinize.release.pairs import pair_up


def row(**columns):
    return {"key": "k", "language": "en", "reference": "7 cars", "prediction": "7", **columns}


@pytest.mark.parametrize("kept", [{}, {"prompt": "Say how many, of 9."}])
def test_a_release_that_kept_no_prompt_is_judged_by_the_one_of_today(kept):
    """Today's answer has one known number, 7; that of the release one of two, 9 and 5."""
    metric = metrics.get("number-precision")
    ours = SimpleNamespace(
        rows={"en": [row(prompt="Say how many, of 9.")]}, metrics={metric.name: metric}
    )
    pair = pair_up(ours, {"en": [row(prediction="9 and 5", **kept)]})["en"]
    assert [metric.row_score(one) for one in pair.ours] == [1.0]
    assert [metric.row_score(one) for one in pair.theirs] == [0.5]
    assert pair.theirs[0]["prediction"] == "9 and 5"


def test_rows_without_a_prompt_stay_as_they_are():
    metric = metrics.get("rouge-l")
    ours = SimpleNamespace(rows={"en": [row()]}, metrics={metric.name: metric})
    assert pair_up(ours, {"en": [row(prediction="8")]})["en"].theirs == [row(prediction="8")]
