"""How many mistakes become one error, and names that look alike."""

import pytest

from koinize.data import not_among, refuse
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


@pytest.mark.parametrize(
    ("word", "known", "remedy"),
    [
        ("postive", ["negative", "positive"], "did you mean 'positive'?"),
        (
            "go\u200bod",
            ["bad", "good"],
            "did you mean 'good'? It has U+200B ZERO WIDTH SPACE too many",
        ),
        ("good ", ["bad", "good"], "did you mean 'good'? It has U+0020 SPACE too many"),
        (
            "cafe\u0301",
            ["tea", "caf\u00e9"],
            "did you mean 'caf\u00e9'? It has U+0065 LATIN SMALL LETTER E, U+0301 COMBINING ACUTE "
            "ACCENT where U+00E9 LATIN SMALL LETTER E WITH ACUTE belongs",
        ),
        (
            "g\u043e\u043ed",
            ["bad", "good"],
            "did you mean 'good'? It has U+043E CYRILLIC SMALL LETTER O where U+006F LATIN SMALL "
            "LETTER O belongs",
        ),
        ("\u826f", ["\u60aa", "\u826f\u3044"], "did you mean '\u826f\u3044'?"),
        ("xyz", ["bad", "good"], ""),
    ],
)  # fmt: skip
def test_names_that_look_alike_are_told_apart(word, known, remedy):
    assert not_among("no", word, known).remedy == remedy
