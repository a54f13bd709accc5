"""Structures: groups of languages that are merged first."""

from __future__ import annotations

import pytest

from koinize.errors import InputError
from koinize.merge.division import divided
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.systems import among
from koinize.pipeline.whatif import Question, changed
from koinize.spec.edit import add_language, remove_language
from koinize.spec.splice import YamlText
from tests.pipeline.conftest import SPEC, Small

GROUPED = SPEC.replace("languages: [en, de]", "languages: [en, de, ja]").replace(
    "candidates: [paper]", "candidates: [mean, {recipe: mean, groups: [[de, en]]}]"
)


@pytest.fixture
def grouped(small: Small) -> Small:
    """German and English are merged first; Japanese is in no group."""
    for split in ("train", "dev", "test"):
        small.rows("ja", split, [f"ja {split} {n}" for n in range(4)])
    small.spec(GROUPED)
    return small


@pytest.mark.parametrize(
    ("groups", "merged", "expected"),
    [
        ([["de", "en"], ["ja"]], ("de", "en", "ja"), [["de", "en"], ["ja"]]),
        ([["de", "en"]], ("de", "en", "ja"), [["de", "en"], ["ja"]]),  # its own group
        ([["de", "en"], ["ja"]], ("de", "ja"), []),  # every group has one name
        ([["de", "en"], ["ja"]], ("de", "en"), []),  # there is one group
        ([], ("de", "en"), []),
    ],
)
def test_what_is_merged_is_divided(groups, merged, expected) -> None:
    stated = MergeSettings(recipe="mean", groups=groups).groups
    assert divided(stated, merged) == tuple(map(tuple, expected))
    assert among(MergeSettings(recipe="mean", groups=groups), merged).groups == divided(
        stated, merged
    )


def test_groups_are_a_candidate_beside_others(grouped: Small) -> None:
    steps = grouped.steps()
    apart, first = (steps[f"merge/mood/mean{one}"] for one in ("", " groups de+en,ja"))
    assert first.merge
    assert first.merge.groups == (("de", "en"), ("ja",))
    assert first.uses == apart.uses
    assert first.id != apart.id


def test_the_order_of_groups_is_no_part_of_an_identity(grouped: Small) -> None:
    before = {step.id for step in grouped.steps().values()}
    grouped.spec(GROUPED.replace("[[de, en]]", "[[ja], [en, de]]"))
    assert {step.id for step in grouped.steps().values()} == before


def test_groups_that_divide_nothing_are_the_merge_without_them(grouped: Small) -> None:
    grouped.spec(GROUPED.replace("[[de, en]]", "[[ja], [en], [de]]"))
    merges = {one.id for one in grouped.steps().values() if one.kind == "merge"}
    grouped.spec(GROUPED.replace(", {recipe: mean, groups: [[de, en]]}", ""))
    assert merges == {one.id for one in grouped.steps().values() if one.kind == "merge"}


def test_a_group_whose_weights_are_0_is_refused_before_anything_is_trained(grouped: Small) -> None:
    text = GROUPED.replace("[[de, en]]", "[[de, en]], weights: {de: 0, en: 0}")
    grouped.spec(text)
    with pytest.raises(InputError) as caught:
        grouped.steps()
    assert str(caught.value) == (
        "merge.candidates 'mean weights de=0,en=0 groups de+en' gives every language of a group "
        "the weight 0: de, en; give one of them a weight"
    )


def test_languages_come_and_go(grouped: Small) -> None:
    for split in ("train", "dev", "test"):
        grouped.rows("sw", split, [f"sw {split} {n}" for n in range(4)])
    grouped.spec(add_language(YamlText(GROUPED, "koinize.yaml"), "sw", {}).file.text)
    assert "merge/mood/mean groups de+en,ja,sw" in grouped.steps()
    grouped.spec(remove_language(YamlText(GROUPED, "koinize.yaml"), "ja").file.text)
    assert {one for one in grouped.steps() if one.startswith("merge")} == {
        "merge/mood/mean",
        "merge/mood/mean scale 2",
    }


def test_of_branches_only_those_are_grouped(grouped: Small) -> None:
    settings = MergeSettings(recipe="sum", groups=(("de", "en"), ("ja",)))
    assert among(settings, ["de", "en", "ja"]) == settings
    assert among(settings, ["de", "ja"]) == MergeSettings(recipe="sum")


def test_a_question_leaves_a_language_out_of_its_group() -> None:
    settings = MergeSettings(recipe="mean", groups=(("de", "en", "fr"), ("ja",)))
    left = changed(settings, Question(without=("fr",)), ["de", "en", "ja"])
    assert left.groups == (("de", "en"), ("ja",))
