"""Settings that define the same merge have one identity."""

import json
from collections import defaultdict
from itertools import product

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from koinize.adapter import Factors
from koinize.merge.compose import merge_module
from koinize.merge.recipe import RECIPES, MergeSettings, merge_settings

FEW = settings(max_examples=40, derandomize=True)
VALUES = {
    "density": [1.0, 0.5],
    "seed": [0, 7],
    "rescale": [None, "inverse", "l1"],
    "scope": [None, "module", "adapter"],
    "sign": ["total", "frequency"],
    "normalize": [None, "weights", "count", "none"],
    "epsilon": [0.1, 0.2],
    "outliers": [0.01, 0.2],
    "space": [None, "dense", "knots", "core"],
}
EVERYWHERE = {
    "weights": [{}, {"en": 1.0}, {"en": 2.0}],
    "scale": [1.0, 0.5],
    "rank": ["full", 2],
}


@st.composite
def merges(draw):
    recipe = draw(st.sampled_from(RECIPES.names()))
    names = [*EVERYWHERE, *RECIPES.get(recipe).options]
    choices = {**VALUES, **EVERYWHERE}
    return merge_settings(
        recipe=recipe, **{name: draw(st.sampled_from(choices[name])) for name in names}
    )


@FEW
@given(one=merges())
def test_it_is_plain_json_and_its_own(one):
    assert json.loads(json.dumps(one.identity())) == one.identity()
    again = MergeSettings.model_validate(one.model_dump(mode="json"))
    assert again.identity() == one.identity()


@FEW
@given(one=merges(), seed=st.integers(1, 99), scope=st.sampled_from(["module", "adapter"]))
def test_at_density_1_sparsifying_leaves_no_trace(one, seed, scope):
    options = RECIPES.get(one.recipe).options
    idle = {"density": 1.0, "seed": seed, "scope": scope, "rescale": "l1", "epsilon": 0.3}
    used = {name: value for name, value in idle.items() if name in options}
    changed = merge_settings(**{**one.given(), **used})
    full = {"density": 1.0} if "density" in options else {}
    assert changed.identity() == merge_settings(**{**one.given(), **full}).identity()
    assert not {"seed", "scope", "rescale", "epsilon", "density"} & set(changed.identity())


@FEW
@given(one=merges())
def test_what_an_override_does_not_change_leaves_no_trace(one):
    local = {"*.q_proj": {"scale": one.scale, "rank": one.rank}, "v_proj": {"weights": one.weights}}
    assert merge_settings(**{**one.given(), "overrides": local}).identity() == one.identity()
    other = {"v_proj": {"scale": 3}}
    assert merge_settings(**{**one.given(), "overrides": other}).identity() == {
        **one.identity(),
        "overrides": {"v_proj": {"scale": 3.0}},
    }


def test_every_default_leaves_no_trace():
    for name in RECIPES.names():
        assert merge_settings(recipe=name).identity().keys() == {"space", "sparsify", "combine"}


def test_on_paper():
    def same(*several):
        first, *others = [merge_settings(**one).identity() for one in several]
        return all(one == first for one in others)

    ties = {"recipe": "ties"}
    assert same(ties, {"recipe": "dare-ties", "seed": 5}, {"recipe": "della"})
    assert same({"recipe": "knots-ties"}, {**ties, "space": "knots"})
    assert same(
        {"recipe": "mean"}, {"recipe": "dare-linear"}, {"recipe": "mean", "weights": {"a": 1}}
    )
    assert same({"recipe": "sum"}, {"recipe": "sum", "space": "core"}, {"recipe": "breadcrumbs"})
    # A dialect is the conventions that it stands for.
    mergekit = {"recipe": "dare-ties", "density": 0.5, "dialect": "mergekit"}
    spelled = {"recipe": "dare-ties", "density": 0.5, "normalize": "none", "rescale": "l1"}
    assert same(mergekit, spelled)
    assert same({**ties, "dialect": "mergekit"}, ties)
    for different in (
        {"density": 0.5},
        {"dialect": "peft"},
        {"dialect": "knots"},
        {"sign": "frequency"},
        {"overrides": {"q_proj": {"density": 0.5}}},
        {"rank": 4},
        {"weights": {"en": 2.0}},
        {"dtype": "bfloat16"},
    ):
        assert not same(ties, {**ties, **different}), different
    # An override with a density wakes the masks, and with them their seed.
    local = {"recipe": "dare-ties", "overrides": {"q_proj": {"density": 0.5}}}
    assert not same(local, {**local, "seed": 1})
    assert merge_settings(**local, seed=1).identity() == {
        "space": "dense",
        "sparsify": ["drop"],
        "combine": "elect",
        "seed": 1,
        "overrides": {"q_proj": {"density": 0.5}},
    }


def grid():
    for recipe in RECIPES.names():
        names = [
            n for n in RECIPES.get(recipe).options if n in ("density", "seed", "rescale", "space")
        ]
        for values in product(*(VALUES[name] for name in names)):
            yield merge_settings(recipe=recipe, **dict(zip(names, values, strict=True)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_identity_is_one_merge():
    """All settings of a grid, merged: those of one identity agree to rounding."""
    random = torch.Generator().manual_seed(0)
    updates = {
        one: Factors(torch.randn(9, 2, generator=random), torch.randn(2, 8, generator=random))
        for one in ("de", "en", "fr")
    }
    groups = defaultdict(list)
    for one in grid():
        merged = merge_module("m", updates, one).factors
        groups[json.dumps(one.identity(), sort_keys=True)].append(merged.B @ merged.A)
    assert any(len(group) > 3 for group in groups.values())
    for group in groups.values():
        for other in group[1:]:
            assert torch.allclose(other, group[0], rtol=0, atol=1e-5)
