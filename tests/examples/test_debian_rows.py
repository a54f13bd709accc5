"""Families, splits and rows of the Debian recipe, on texts made for each test."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "debian"))

import families
import neighbours
import rows
import texts

LANGUAGES = ("de", "en", "fr", "ja", "zh")
SECTIONS = ("games", "sound", "net", "libdevel", "admin", "fonts", "doc")


def text(package: str, short: str, long: str = "nothing", **other: str) -> texts.Text:
    known = {"section": "games", "language": "en", "first": ""} | other
    return texts.Text(package=package, short=short, long=long, **known)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_union_find_is_reachability(pairs):
    # The oracle: Warshall's transitive closure of the relation.
    reach = np.eye(13, dtype=bool)
    found = families.Families()
    for one, other in pairs:
        found.join(f"{one:02}", f"{other:02}")
        reach[one, other] = reach[other, one] = True
    for through in range(13):
        reach |= np.outer(reach[:, through], reach[through])
    for name in range(13):
        assert found.of(f"{name:02}") == f"{int(np.flatnonzero(reach[name])[0]):02}"


def test_families_join_by_source_stem_and_first_paragraph():
    shared = "x" * families.LEAST_PARAGRAPH
    every = [
        text("kite-data", "a"),
        text("libkite2", "b"),
        text("owl", "c"),
        text("zebra", "d", language="de", first=shared),
        text("yak", "e", language="de", first=shared),
        text("wren", "f", language="fr", first=shared),
        text("vole", "g", first="short"),
        text("toad", "h", first="short"),
    ]
    source = {t.package: t.package for t in every} | {"owl": "src", "vole": "src"}
    found = families.relate(every, source)
    groups = Counter(found.of(t.package) for t in every)
    assert groups == {"kite-data": 2, "owl": 2, "yak": 2, "wren": 1, "toad": 1}


def test_a_beginning_that_many_sources_share_is_no_stem():
    names = [f"python3-{name}" for name in "abcdefghijklm"] + ["python3-a-doc"]
    stems = families.stems({name: name for name in names})
    assert stems["python3-a"] == stems["python3-a-doc"] == "python-a"
    assert stems["python3-b"] == "python-b"


def test_split_shares_fill_dev_and_test_first_when_texts_are_few():
    sizes = families.Sizes(train=300, dev=100, test=200, extra=100)
    assert families.split_shares(1400, sizes) == pytest.approx(
        {"train": 4 / 7, "dev": 1 / 7, "test": 2 / 7}
    )
    assert families.split_shares(640, sizes) == pytest.approx(
        {"train": 340 / 640, "dev": 100 / 640, "test": 200 / 640}
    )
    assert families.split_shares(60, sizes) == pytest.approx(
        {"train": 1 / 2, "dev": 1 / 6, "test": 1 / 3}
    )


@given(
    st.lists(
        st.tuples(st.sampled_from(LANGUAGES), st.integers(0, 30), st.sampled_from(SECTIONS)),
        max_size=60,
        unique_by=lambda drawn: drawn[:2],
    ),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=10),
    st.integers(0, 3),
)
def test_every_family_is_in_one_split(drawn, related, seed):
    pools = {language: [] for language in LANGUAGES}
    for language, number, section in drawn:
        made = text(f"{number:02}", "short", section=section, language=language)
        pools[language].append(made)
    found = families.Families()
    for one, other in related:
        found.join(f"{one:02}", f"{other:02}")
    sizes = families.Sizes(3, 1, 2, 1)
    split = families.assign(pools, found, rows.topic_of, sizes, seed)
    assert set(split) == {found.of(t.package) for pool in pools.values() for t in pool}
    assert set(split.values()) <= set(families.SPLITS)
    assert split == families.assign(pools, found, rows.topic_of, sizes, seed)


def test_splits_get_their_share_of_every_topic():
    pool = [
        text(f"{section}{number:03}", "short", section=section)
        for section in SECTIONS[:3]
        for number in range(60)
    ]
    none = families.Families()
    split = families.assign(
        {"en": pool}, none, rows.topic_of, families.Sizes(30, 10, 20, 0), seed=1
    )
    counts = Counter((rows.topic_of(t), split[t.package]) for t in pool)
    for topic in ("games", "media", "network"):
        # Of 60: 30, 10 and 20, give or take one for where a topic begins.
        for name, share in (("train", 30), ("dev", 10), ("test", 20)):
            assert abs(counts[topic, name] - share) <= 1


def test_balanced_takes_turns_and_passes_over_what_is_used_up():
    pool = [text(f"g{n}", "a") for n in range(5)] + [text("n", "b", section="net")]
    assert [t.package for t in rows.balanced(pool, 4)] == ["g0", "n", "g1", "g2"]
    assert [t.package for t in rows.balanced(pool, 9)] == ["g0", "n", "g1", "g2", "g3", "g4"]


def test_spread_takes_every_family_once_before_any_twice():
    found = families.Families()
    pool = [text(name, "a") for name in ("a1", "a2", "a3", "b1", "b2", "c1")]
    for one, other in (("a1", "a2"), ("a1", "a3"), ("b1", "b2")):
        found.join(one, other)
    order = [found.of(t.package) for t in rows.spread(pool, found, seed=0)]
    assert sorted(order[:3]) == ["a1", "b1", "c1"]
    assert sorted(order[3:5]) == ["a1", "b1"]


def test_distractors_are_wrong_and_differ():
    found = families.Families()
    found.join("kite", "kite-data")
    found.join("owl", "owl-data")
    near = [
        text("kite-data", "files of that same game"),  # the text's own family
        text("rival", "a game of paper kites"),  # nearly the right one
        text("quoted", "race your friends"),  # stands in the text
        text("owl", "hunting mice by night"),
        text("owl-data", "sounds and pictures"),  # a second one of one family
        text("echo", "hunting mice by nights"),  # nearly the one before
        text("frog", "pond simulator"),
        text("crab", "sideways racing"),
        text("fourth", "more than are needed"),
    ]
    right = text("kite", "game of paper kites", long="Race your friends over the sea.")
    chosen = rows.pick_distractors(right, list(enumerate(near)), found)
    assert [near[number].package for number in chosen] == ["owl", "frog", "crab"]


def test_overlap_is_the_dice_coefficient():
    # abc bcd cde against bcd cde def: two of three in common.
    assert neighbours.overlap("abcde", "bcdef") == pytest.approx(2 / 3)
    # Bigrams count too where both are Chinese: 风筝 筝游 风筝游 against 风筝 only one in 3 + 1.
    assert neighbours.overlap("风筝游", "风筝") == pytest.approx(2 * 1 / 4)
    assert neighbours.overlap("a", "a") == 1
    assert neighbours.overlap("a", "b") == 0


def test_tfidf_weighs_rare_ngrams_and_is_normalised():
    matrix = neighbours.tfidf(["abc abc", "abc xyz", "abcd"]).toarray()
    assert np.linalg.norm(matrix, axis=1) == pytest.approx([1, 1, 1])
    # "abc" is in every text, so it weighs log(3 / 3) = 0, and "bcd" alone makes up the last one.
    assert max(matrix[2]) == pytest.approx(1)
