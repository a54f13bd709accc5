"""The sentence that a manager reads: what it says for each verdict."""

import pytest

from koinize.report.answer import the_answer, when_stated

ROW = {
    "system": "ties",
    "reference": "COMB",
    "metric": "macro-f1",
    "n": 210,
    "margin": 2.0,
    "rows_needed": None,
    "by_seed": [],
}


def task(changed_since=(), smallest=9.3, **row):
    return {
        "metrics": ["macro-f1"],
        "reference": "COMB",
        "chosen": "ties",
        "languages": ["de", "en", "ja"],
        "changed_since": list(changed_since),
        "pooled": [{**ROW, **row}] if row else [],
        "power": {
            "metric": "macro-f1",
            "margin": 2.0,
            "fewest_rows": 209,
            "languages": [
                {"language": "de", "n": 400, "smallest_margin": 1.1},
                {"language": "en", "n": 42, "smallest_margin": smallest},
                {"language": "ja", "n": 50, "smallest_margin": smallest},
            ],
        },
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"verdict": "worse", "difference": -9.9, "low": -17.2, "high": -1.5},
            "is about 9.9 points of macro-f1 below COMB (1.5 to 17.2, on 210 rows): a loss is "
            "shown.",
        ),
        (
            {"verdict": "better", "difference": 3.04, "low": 1.0, "high": 5.5},
            "is about 3.0 points of macro-f1 above COMB (1.0 to 5.5, on 210 rows): this is shown.",
        ),
        (
            {"verdict": "not worse", "difference": -0.3, "low": -1.4, "high": 0.9},
            "loses less than 2 points of macro-f1 to COMB: this is shown (the difference is -0.3 "
            "points, from -1.4 to +0.9, on 210 rows).",
        ),
        (
            {
                "verdict": "inconclusive",
                "difference": -1.2,
                "low": -4.0,
                "high": 1.6,
                "rows_needed": 1840,
            },
            "may be better or worse than COMB: the difference in macro-f1 is -1.2 points, from "
            "-4.0 to +1.6, on 210 rows, and a loss of 2 points is neither shown nor excluded; "
            "about 1,840 rows would decide, were this the true difference.",
        ),
    ],
)
def test_better_or_worse_by_how_much_how_certain(row, said):
    assert the_answer(task(smallest=2.0, **row)) == f"ties, in the mean of 3 languages, {said}"


def test_which_languages_have_too_few_rows():
    said = the_answer(task(verdict="worse", difference=-9.9, low=-17.2, high=-1.5))
    assert said.endswith(
        " a loss is shown. In en and ja alone, 42 rows would not show a loss below 2 points even "
        "if all answers were equal; 209 rows would."
    )


def test_a_reference_of_other_rows_is_named_so():
    said = the_answer(task(["rows of ja"], verdict="worse", difference=-9.9, low=-17.2, high=-1.5))
    assert said.endswith(
        "a loss is shown. COMB was trained before rows of ja changed. In en and ja alone, 42 "
        "rows would not show a loss below 2 points even if all answers were equal; 209 rows would."
    )


def test_nothing_is_said_where_nothing_was_compared():
    assert the_answer(task()) == ""


def stated(**told):
    return when_stated({"stated": {"utc": "2026-11-26T10:00:00+00:00", "later": [], **told}})


def test_when_the_margins_were_said():
    day = "The margins were recorded on 2026-11-26, before test was first scored"
    assert when_stated({"stated": None}) == ("Nobody recorded the margins before test was scored.")
    assert stated(beforehand=True, changed=[]) == f"{day}."
    assert stated(beforehand=False, changed=[]) == (
        "The margins were first recorded on 2026-11-26, after test had been scored."
    )
    assert stated(beforehand=True, changed=[], later=["accuracy", "recall"]) == (
        f"{day}. No margin of accuracy and recall was recorded then."
    )
    changed = {"metric": "macro-f1", "margin": 2.0, "now": 5.0}
    assert stated(
        beforehand=True, changed=[{**changed, "mean": "worse", "joint": "inconclusive"}]
    ) == (
        f"{day}, and changed since: that of macro-f1 was 2 points and is 5 now: by the first one, "
        "worse in the mean and inconclusive over every language."
    )
