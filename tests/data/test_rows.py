"""Identity of rows and splits, and how many mistakes become one error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.data import Row, canonical_order, refuse, row_digest, rows_digest
from koinize.errors import InputError, ManyErrors

values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=3)
columns = st.dictionaries(st.text(max_size=5), values, max_size=4)


def rows_of(contents: list[dict[str, object]]) -> list[Row]:
    return [Row(one, f"f:{number}") for number, one in enumerate(contents, start=1)]


@given(st.lists(columns, max_size=8).flatmap(lambda c: st.tuples(st.just(c), st.permutations(c))))
def test_the_order_of_rows_and_columns_changes_no_identity(two_orders):
    first, second = two_orders
    second = [dict(reversed(one.items())) for one in second]

    assert rows_digest(rows_of(first)) == rows_digest(rows_of(second))
    ordered = [row.columns for row in canonical_order(rows_of(first))]
    assert ordered == [row.columns for row in canonical_order(rows_of(second))]


def test_the_number_of_rows_and_every_value_count():
    one, other = {"text": "a", "n": 1}, {"text": "a", "n": "1"}

    assert row_digest(Row(one, "f:1")) == row_digest(Row(one, "g:7"))
    digests = [
        rows_digest(rows_of(rows)) for rows in ([], [one], [one, one], [other], [one, other])
    ]
    assert len(set(digests)) == len(digests)


def test_refuse_shows_twenty_errors_and_counts_the_rest():
    errors = [InputError("bad", where=f"f:{number}") for number in range(1, 24)]

    refuse([])
    with pytest.raises(ManyErrors) as caught:
        refuse(errors)

    assert str(caught.value).splitlines() == [
        *(f"f:{number} bad" for number in range(1, 21)),
        "and 3 more like these",
    ]
    with pytest.raises(ManyErrors) as caught:
        refuse(errors[:20])
    assert len(str(caught.value).splitlines()) == 20
