"""Numbers as people read them."""

import pytest

from koinize.report.formats import (
    count,
    difference,
    duration,
    interval,
    listing,
    money,
    points,
    saving,
    share,
)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (0.42, "0.42 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (250.4, "4 min 10 s"),
        (3599.7, "1 h 00 min"),
        (7380.0, "2 h 03 min"),
    ],
)
def test_durations_have_the_unit_that_fits(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (None, "–"),
        (0.0, "EUR 0.00"),
        (1234.5, "EUR 1,234.50"),
        (0.048, "EUR 0.0480"),
        (0.00001, "EUR under 0.0001"),
    ],
)
def test_money_keeps_three_digits(amount, said):
    assert money(amount, "EUR") == said
    assert money(amount, None) == "–"


def test_savings_are_words():
    assert [saving(x) for x in (None, 12.34, -7.5, 0.01)] == [
        "–",
        "12.3 % less",
        "7.5 % more",
        "no difference",
    ]


def test_points_differences_and_shares():
    assert (points(62.04), points(None)) == ("62.0", "–")
    assert (difference(-1.04), difference(2.0), difference(None)) == ("−1.0", "+2.0", "–")
    assert interval(-3.0, 1.25, signed=True) == "[−3.0, +1.2]"
    assert interval(57.8, 66.2) == "[57.8, 66.2]"
    assert [share(x) for x in (None, 0.0, 0.0123, 0.25)] == ["–", "0 %", "1.2 %", "25 %"]


def test_lists_and_counts():
    assert [listing(x) for x in ([], ["de"], ["de", "en"], ["de", "en", "fr"])] == [
        "",
        "de",
        "de and en",
        "de, en and fr",
    ]
    assert (count(1, "merge"), count(2000, "row")) == ("1 merge", "2,000 rows")
