"""The order in which dev rows are answered by parts: any part has the labels of the whole."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from koinize.search.halving import part
from koinize.search.order import balanced

GOLD = st.lists(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40), min_size=1, max_size=6
)


def test_two_languages_by_hand() -> None:
    """Of 8 rows 3 are a and 5 are b; the languages take turns, the second first (.125, .25, ...).

    Behind by its share in the language and, thrice, in both: first b by .75 + 3 x .625 and a by
    .25 + 3 x .375; then in the first language a by .5 + 3 x .75 and b by .5 + 3 x .25; then b by
    .5 + 3 x .875; then b by 1 + 3 x .5 and a by 0 + 3 x .5; then a by .75 + 3 x .875; then b by
    .5 + 3 x .75. What is left has one label in each.
    """
    assert balanced(["aabb", "abbb"]) == [[0, 2, 3, 1], [1, 2, 0, 3]]


def test_one_label_is_the_order_that_it_was() -> None:
    assert balanced(["aaaa"]) == [[0, 1, 2, 3]]
    assert balanced(["ab", ""]) == [[0, 1], []]


@given(gold=GOLD, share=st.floats(0.0, 1.0))
def test_every_share_of_the_rows_has_its_share_of_every_label(
    gold: list[list[str]], share: float
) -> None:
    """Within two rows, in all languages together; and every row is there once."""
    order = balanced(gold)
    assert [sorted(one) for one in order] == [list(range(len(labels))) for labels in gold]
    upto = [part(len(labels), share, place, len(gold)) for place, labels in enumerate(gold)]
    taken = Counter(
        labels[row]
        for labels, rows, last in zip(gold, order, upto, strict=True)
        for row in rows[:last]
    )
    whole = Counter(label for labels in gold for label in labels)
    for label, rows in whole.items():
        assert abs(taken[label] - rows * sum(upto) / whole.total()) < 2, label
