"""The sentence on every language: what is certain of one alone may be chance among all."""

import pytest

from koinize.report.sections.summary import _comparisons, _quality_fact

LANGUAGES = ["de", "en", "ja"]


def task(worse, same_as=None):
    row = {"system": "ties", "reference": "COMB", "metric": "accuracy", "by_seed": []}
    return {
        "metrics": ["accuracy"],
        "reference": "COMB",
        "chosen": "ties",
        "languages": LANGUAGES,
        "margins": {"accuracy": 2.0},
        "changed_since": [],
        "systems": [{"name": "ties", "kind": "candidate", "chosen": True, "same_as": same_as}],
        "verdicts": [
            {**row, "language": one, "verdict": "worse" if one == "ja" else "not worse"}
            for one in LANGUAGES
        ],
        "joint": [{**row, "worse": worse}],
    }


@pytest.mark.parametrize(
    ("worse", "more"),
    [
        (["ja"], ""),
        ([], " (ja by itself; among all languages chance may bring that)"),
    ],
)
def test_a_loss_that_chance_may_bring_among_all_languages_is_told_so(worse, more):
    assert _comparisons(task(worse)) == [
        "On test against COMB with a margin of 2 points: not worse in de and en; worse in ja"
        f"{more}."
    ]


def test_nothing_is_compared_with_itself():
    assert _comparisons(task([], same_as="COMB")) == []
    assert _quality_fact(task([], same_as="COMB"))[1:] == (
        "the same",
        "what would be released is COMB itself",
    )
