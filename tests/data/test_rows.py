"""How many mistakes become one error."""

import pytest

from koinize.data import refuse
from koinize.errors import InputError, ManyErrors


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
