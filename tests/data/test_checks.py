"""Leaks, duplicates and conflicts, against a slow comparison of every pair of rows."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.data import SPLITS, Finding, Row, check_splits, refuse_leaks
from koinize.errors import ManyErrors

PLACES = [(language, split) for language in ("de", "en") for split in SPLITS]


def place_rows(contents: dict[tuple[str, str], list[dict[str, object]]]):
    return {
        (language, split): [
            Row(columns, f"{language}.{split}:{number}")
            for number, columns in enumerate(rows, start=1)
        ]
        for (language, split), rows in contents.items()
    }


def check(contents, key=None):
    return check_splits(
        place_rows(contents),
        text=lambda row, language: row.columns["text"],
        answer=lambda row, language: row.columns["label"],
        key=key,
    )


def row(text: str, label: str = "x", **more: object) -> dict[str, object]:
    return {"text": text, "label": label, **more}


def test_clean_splits_have_no_findings():
    parallel = {place: [row(f"{place} text", product=place[1])] for place in PLACES}

    assert check(parallel, key="product") == ()


def test_each_kind_of_finding_in_full():
    findings = check(
        {
            ("en", "train"): [row("good"), row("bad"), row("good"), row("bad", "y")],
            ("en", "test"): [row("  good\n")],
            ("de", "dev"): [row("bad")],
        }
    )

    assert [(one.severity, str(one)) for one in findings] == [
        ("error", "de.dev:1 leaks from en.train:2: the same text, 'bad'"),
        ("error", "en.test:1 leaks from en.train:1: the same text, 'good'"),
        ("warning", "en.train:4 contradicts en.train:2: 'bad' is answered 'y' here and 'x' there"),
        ("warning", "en.train:3 repeats en.train:1: 'good'"),
    ]


def test_a_key_leaks_across_languages_but_not_within_a_split():
    findings = check(
        {
            ("en", "train"): [row("good", product=7)],
            ("de", "train"): [row("gut", product=7)],
            ("de", "test"): [row("sehr gut", product="7"), row("nichts", product=8)],
        },
        key="product",
    )

    assert findings == (Finding("leak", "the same product, '7'", "de.test:1", "de.train:1"),)


def test_rows_that_share_text_and_key_leak_once():
    rows = {("en", "train"): [row("good", id="a")], ("en", "dev"): [row("good", id="a")]}

    assert [one.what for one in check(rows, key="id")] == ["the same text, 'good'"]


def test_composition_makes_no_difference_and_long_texts_are_cut():
    composed, decomposed = "caf\u00e9 " * 20, "cafe\u0301 " * 20

    (found,) = check({("en", "train"): [row(composed)], ("en", "dev"): [row(decomposed)]})

    shown = ("café " * 20)[:59] + "…"
    assert found.what == f"the same text, '{shown}'"


def test_a_row_without_the_key_is_refused():
    with pytest.raises(ManyErrors) as caught:
        check({("en", "train"): [row("a"), row("b", id=None), row("c", id=0)]}, key="id")

    assert str(caught.value) == (
        "en.train:1 the key column 'id' is empty\nen.train:2 the key column 'id' is empty"
    )


def test_only_leaks_are_refused():
    repeats = {("en", "train"): [row("a"), row("a")]}
    refuse_leaks(check(repeats))

    with pytest.raises(ManyErrors) as caught:
        refuse_leaks(check({**repeats, ("en", "dev"): [row("a")]}))

    assert str(caught.value) == (
        "en.dev:1 leaks from en.train:1: the same text, 'a'; keep it in one of the splits only"
    )


@given(
    st.dictionaries(
        st.sampled_from(PLACES),
        st.lists(st.builds(row, st.sampled_from("ab"), st.sampled_from("xy")), max_size=4),
    )
)
def test_a_finding_exists_exactly_where_two_rows_agree(contents):
    everything = [(place, one) for place, rows in contents.items() for one in rows]
    pairs = [
        (p, q, a, b) for (p, a), (q, b) in combinations(everything, 2) if a["text"] == b["text"]
    ]
    expected = {
        "leak": any(p[1] != q[1] for p, q, _, _ in pairs),
        "duplicate": any(p == q and a["label"] == b["label"] for p, q, a, b in pairs),
        "conflict": any(p == q and a["label"] != b["label"] for p, q, a, b in pairs),
    }

    kinds = {one.kind for one in check(contents)}

    assert ("leak" in kinds) == expected["leak"]
    assert ("conflict" in kinds) == expected["conflict"]
    # Three rows may repeat two different answers; they are compared with the first one only.
    assert ("duplicate" in kinds) <= expected["duplicate"]
    assert (kinds & {"duplicate", "conflict"} != set()) == any(p == q for p, q, _, _ in pairs)
