"""What is said of a slot's plug-ins without loading them is what they do."""

import inspect
from typing import get_args

import pytest
import torch

from koinize.adapter import Factors
from koinize.merge import compose, slots
from koinize.merge.combine._linear import Linear
from koinize.merge.compose import merge_module
from koinize.merge.recipe import RECIPES, MergeSettings, merge_settings
from koinize.merge.slots import FACTS

KINDS = {
    "spaces": (compose.SPACES, slots.SPACES),
    "sparsifiers": (compose.SPARSIFIERS, slots.SPARSIFIERS),
    "combines": (compose.COMBINES, slots.COMBINES),
}
OUTPUTS, INPUTS, RANKS = 20, 30, (2, 3)


def updates(ranks=RANKS):
    random = torch.Generator().manual_seed(3)
    return [
        Factors(
            torch.randn(OUTPUTS, rank, generator=random),
            torch.randn(rank, INPUTS, generator=random),
        )
        for rank in ranks
    ]


def reads(plugin):
    parameters = inspect.signature(plugin).parameters.values()
    return {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("kind", KINDS)
def test_every_plug_in_has_an_entry_and_every_entry_a_plug_in(kind):
    catalog, entries = KINDS[kind]
    assert sorted(entries) == list(catalog.names())


def test_the_spaces_that_may_be_asked_for_are_those_that_there_are():
    named, _ = get_args(MergeSettings.model_fields["space"].annotation)
    assert set(get_args(named)) == set(slots.SPACES)


@pytest.mark.parametrize("name", slots.SPACES)
def test_a_space_has_the_entries_that_are_said(name):
    entry = slots.SPACES[name]
    ranks = (3, 3) if entry.apart else RANKS
    parts = compose.SPACES.get(name)(updates(ranks)).parts
    assert sum(one.shape[0] * one.shape[1] for one in parts) == entry.entries(
        OUTPUTS, INPUTS, ranks
    )
    assert (len(parts) == 2) == entry.apart


@pytest.mark.parametrize("name", slots.SPACES)
def test_only_a_full_space_gives_an_election_more_directions_than_the_updates_have(name):
    options = {"recipe": "ties", "space": name, "rank": 15}
    given = dict(zip(("de", "en"), updates((3, 3)), strict=True))
    merged = merge_module("m", given, merge_settings(**options))
    assert (merged.factors.rank > 6) == slots.SPACES[name].full


@pytest.mark.parametrize("name", slots.COMBINES)
def test_linear_is_what_adds_up(name):
    assert slots.COMBINES[name].linear == isinstance(compose.COMBINES.get(name), Linear)


@pytest.mark.parametrize("name", slots.SPARSIFIERS)
def test_who_looks_at_the_whole_adapter_asks_for_its_thresholds(name):
    assert slots.SPARSIFIERS[name].scoped == ("thresholds" in reads(compose.SPARSIFIERS.get(name)))


def test_a_slot_may_ask_for_any_fact(monkeypatch):
    """By the name of a parameter, as for settings; without it the parameter's default holds."""
    seen = []

    def asking(stack, weights, *, sign, inputs_gram=None):
        seen.append((sign, inputs_gram))
        return stack.matrix(0)

    monkeypatch.setattr(compose, "FACTS", FACTS | {"inputs_gram"})
    monkeypatch.setattr(compose.COMBINES, "get", lambda _: asking)
    given, settings = {"de": updates()[0]}, merge_settings(recipe="ties")
    merge_module("m", given, settings, {"inputs_gram": 7, "thresholds": {}})
    merge_module("m", given, settings)
    assert seen == [("total", 7), ("total", None)]


def test_every_recipe_is_of_known_slots():
    for recipe in map(RECIPES.get, RECIPES.names()):
        assert recipe.space in slots.SPACES
        assert set(recipe.sparsify) <= slots.SPARSIFIERS.keys()
        assert recipe.combine in slots.COMBINES
