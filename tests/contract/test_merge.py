"""What every recipe promises, as properties over random adapters. A new recipe inherits them all.

Tolerances: factors are float32 and all sums have at most 64 products, so a relative error of
64 float32 roundings, measured against the largest entry, is the most that arithmetic explains.
"""

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from koinize.adapter import Factors
from koinize.merge import masks
from koinize.merge.compose import COMBINES, SPACES, SPARSIFIERS, merge_module
from koinize.merge.recipe import COMMON_OPTIONS, RECIPES, MergeSettings, merge_settings
from koinize.merge.slots import FACTS
from koinize.merge.stack import Stack

FLOAT32 = float(np.finfo(np.float32).eps)
CLOSE = 64 * FLOAT32
FEW = settings(max_examples=20, derandomize=True)
every_recipe = pytest.mark.parametrize("recipe", RECIPES.names())

# Combinations for which merging N copies of one adapter gives it back.
AVERAGING = {"mean", "elect"}


@dataclass(frozen=True)
class Case:
    """Adapters of some languages on one module, how to merge them, and perhaps their trunk."""

    updates: dict
    weights: dict
    trunk: Factors | None = None

    def delta(self, language):
        update = self.updates[language]
        return update.B.double() @ update.A.double()

    def merge(self, chosen, updates=None, scaled=1.0):
        trunk = self.trunk and Factors(self.trunk.B * scaled, self.trunk.A)
        return merge_module("m", self.updates if updates is None else updates, chosen, trunk=trunk)

    @property
    def start(self):
        """D_T."""
        return self.trunk.B.double() @ self.trunk.A.double() if self.trunk else 0.0


@st.composite
def cases(draw, fewest=1):
    outputs, inputs = draw(st.integers(3, 24)), draw(st.integers(3, 24))
    languages = draw(st.permutations(["de", "en", "fr", "ja"]))[: draw(st.integers(fewest, 4))]
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def factors(rank):
        B = torch.randn(outputs, rank, generator=random)
        return Factors(B, torch.randn(rank, inputs, generator=random))

    trunk = factors(draw(st.integers(1, 3))) if draw(st.booleans()) else None
    near = trunk is not None and draw(st.booleans())  # as an adapter trained on from it is
    updates = {}
    for language in languages:
        step = factors(trunk.rank if near else draw(st.integers(1, 3)))
        updates[language] = Factors(trunk.B + step.B / 8, trunk.A + step.A / 8) if near else step
    weights = {language: draw(st.sampled_from([0.25, 0.5, 1.0, 3.0])) for language in languages}
    return Case(updates, weights, trunk)


def configured(recipe, density=0.6, **more):
    """Settings with the options that this recipe has."""
    used = {"density": density, "seed": 3}
    options = {key: used[key] for key in RECIPES.get(recipe).options if key in used}
    return merge_settings(recipe=recipe, **options, **more)


def product(merged):
    return merged.factors.B.double() @ merged.factors.A.double()


def assert_close(found, wanted, tolerance=CLOSE):
    assert (found - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max()))


@every_recipe
@FEW
@given(case=cases())
def test_one_adapter_is_itself(recipe, case):
    if RECIPES.get(recipe).combine not in AVERAGING | {"sum"}:
        pytest.skip("changes a single adapter on purpose")
    language = next(iter(case.updates))
    alone = {language: case.updates[language]}
    merged = case.merge(configured(recipe, density=1.0), alone)
    assert_close(product(merged), case.delta(language))


@every_recipe
@FEW
@given(case=cases(), copies=st.integers(2, 4))
def test_copies_of_one_adapter_are_itself(recipe, case, copies):
    if RECIPES.get(recipe).combine not in AVERAGING:
        pytest.skip("adds up on purpose")
    language = next(iter(case.updates))
    same = {f"l{number}": case.updates[language] for number in range(copies)}
    weights = {"l0": 0.5}
    merged = case.merge(configured(recipe, density=1.0, weights=weights), same)
    assert_close(product(merged), case.delta(language))


@pytest.mark.parametrize("recipe", ["mean", "sum"])
@FEW
@given(case=cases(), rank=st.sampled_from([1, 2, 0.9]))
def test_what_cancels_is_nothing_also_where_the_rank_is_cut(recipe, case, rank):
    """D - D = 0; to divide by what rounding leaves of it gives an update of any size."""
    one = next(iter(case.updates.values()))
    opposite = {"de": one, "en": Factors(-one.B, one.A)}
    merged = merge_module("m", opposite, configured(recipe, rank=rank))
    of_one = float(one.B.norm() * one.A.norm())
    assert product(merged).norm() <= CLOSE * of_one


@every_recipe
@FEW
@given(case=cases(fewest=2))
def test_the_order_of_languages_changes_no_byte(recipe, case):
    chosen = configured(recipe, weights=case.weights)
    forward = case.merge(chosen)
    backward = case.merge(chosen, dict(reversed(case.updates.items())))
    assert torch.equal(forward.factors.B, backward.factors.B)
    assert torch.equal(forward.factors.A, backward.factors.A)


@every_recipe
@FEW
@given(case=cases(fewest=2), rows=st.integers(1, 5))
def test_the_size_of_tiles_changes_no_byte(recipe, case, rows):
    chosen = configured(recipe, weights=case.weights)
    whole = case.merge(chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("koinize.merge.stack.TILE_ELEMENTS", rows)
        tiled = case.merge(chosen)
    assert torch.equal(whole.factors.B, tiled.factors.B)
    assert torch.equal(whole.factors.A, tiled.factors.A)


@every_recipe
@FEW
@given(case=cases(fewest=2), data=st.data())
def test_the_basis_of_an_adapter_does_not_matter(recipe, case, data):
    """(B G, G^-1 A) is the same update, so the merge is the same; G mixes, scales and flips."""
    language = data.draw(st.sampled_from(sorted(case.updates)))
    update = case.updates[language]
    mixing = np.random.default_rng(data.draw(st.integers(0, 999))).normal(size=(update.rank,) * 2)
    Q = torch.from_numpy(np.linalg.qr(mixing)[0]) * data.draw(st.sampled_from([0.125, -1.0, 4.0]))
    moved = Factors((update.B.double() @ Q).float(), (Q.inverse() @ update.A.double()).float())
    chosen = configured(recipe, density=1.0, weights=case.weights)
    before = case.merge(chosen)
    after = case.merge(chosen, {**case.updates, language: moved})
    # Entries whose sum is nearly 0 may elect the other sign: all but a few agree.
    difference = (product(before) - product(after)).abs()
    tolerance = 1e3 * CLOSE * max(1.0, float(product(before).abs().max()))
    assert (difference > tolerance).double().mean() <= 0.02


@every_recipe
@FEW
@given(case=cases(), factor=st.sampled_from([0.125, 2.0, 1024.0]))
def test_scaled_adapters_give_the_scaled_merge(recipe, case, factor):
    chosen = configured(recipe, weights=case.weights)
    scaled = {language: Factors(u.B * factor, u.A) for language, u in case.updates.items()}
    once, more = case.merge(chosen), case.merge(chosen.model_copy(update={"scale": factor}))
    assert_close(product(case.merge(chosen, scaled, factor)) / factor, product(once))
    if case.trunk and once.error:
        return  # what is cut from trunk and merge together is in no proportion to the merge
    # `scale` is a factor on what is added to the trunk.
    assert_close((product(more) - case.start) / factor, product(once) - case.start)


@every_recipe
@FEW
@given(case=cases(), rank=st.integers(1, 6))
def test_the_rank_is_kept_and_the_error_is_the_measured_one(recipe, case, rank):
    chosen = configured(recipe, weights=case.weights)
    merged = case.merge(chosen.model_copy(update={"rank": rank}))
    assert merged.factors.rank <= rank
    full = product(case.merge(chosen))
    if RECIPES.get(recipe).space == "dense" and recipe not in ("mean", "sum"):
        return  # even "full" is cut there; test_recipes compares it with the oracle
    if not full.any():
        return  # so few entries that int(density n) is 0
    measured = (full - product(merged)).norm() / full.norm()
    assert abs(float(measured) - merged.error) <= 1e-5 + amplification(case) * FLOAT32


def amplification(case):
    """How much larger the rounding of float32 is on the weakest direction of the factors."""
    updates = [*case.updates.values(), *([case.trunk] if case.trunk else [])]
    sides = [np.hstack([update.B for update in updates]), np.vstack([u.A for u in updates])]
    singular = [np.linalg.svd(side.astype(float), compute_uv=False) for side in sides]
    return sum(values[0] / values[values > 1e-6 * values[0]][-1] for values in singular)


@every_recipe
@FEW
@given(case=cases())
def test_full_density_draws_nothing(recipe, case):
    def refuse(key, start, count):
        assert key[1] == "sketch", "a random number was drawn"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "words", refuse)
        case.merge(configured(recipe, density=1.0))


@pytest.mark.parametrize("space", ["", "knots-"])
@FEW
@given(case=cases())
def test_dare_at_full_density_is_ties_at_full_density(space, case):
    ties = case.merge(configured(f"{space}ties", density=1.0))
    dare = case.merge(configured(f"{space}dare-ties", density=1.0))
    assert torch.equal(ties.factors.B, dare.factors.B)
    assert torch.equal(ties.factors.A, dare.factors.A)


def stack_of(matrices):
    languages = tuple(sorted(matrices))
    return Stack(
        "m",
        languages,
        tuple(matrices[languages[0]].shape),
        lambda index, rows: matrices[languages[index]][rows].clone(),
    )


def ones(*languages):
    return {language: torch.ones(40, 9) for language in languages}


def options_of(slot, **values):
    import inspect

    names = inspect.signature(slot).parameters  # and every option has a value below
    return {key: value for key, value in values.items() if key in names}


@pytest.mark.parametrize("name", SPARSIFIERS.names())
def test_a_mask_depends_on_its_own_language_module_and_seed_alone(name):
    sparsify = SPARSIFIERS.get(name)
    options = options_of(sparsify, density=0.5, seed=1, **EXTRA)
    two = sparsify(stack_of(ones("en", "ja")), **options)
    three = sparsify(stack_of({**ones("de", "ja"), "en": torch.zeros(40, 9)}), **options)
    assert torch.equal(two.matrix(1), three.matrix(2))
    if "seed" in options:
        assert not torch.equal(two.matrix(0), two.matrix(1))
        other = sparsify(stack_of(ones("en", "ja")), **{**options, "seed": 2})
        assert not torch.equal(two.matrix(1), other.matrix(1))


EXTRA = {"epsilon": 0.2, "outliers": 0.1, "rescale": "inverse", "extra": 0, "thresholds": None}


@FEW
@given(case=cases())
def test_elect_never_opposes_the_sign_nor_exceeds_the_largest(case):
    matrices = {language: case.delta(language) for language in case.updates}
    languages = sorted(matrices)
    weights = [case.weights[language] for language in languages]
    stack = stack_of(matrices)
    merged = COMBINES.get("elect")(stack, weights)
    weighted = torch.stack(
        [weight * matrices[language] for language, weight in zip(languages, weights, strict=True)]
    )
    # Added in the same order, so that a sum of nearly 0 has the same sign.
    total = sum(weighted)
    assert bool((merged * total >= 0.0).all())
    largest = torch.stack([matrices[language] for language in languages]).abs().amax(0)
    assert bool((merged.abs() <= largest * (1 + CLOSE)).all())


def test_every_recipe_declares_exactly_the_options_that_its_slots_read():
    import inspect

    for name in RECIPES.names():
        recipe = RECIPES.get(name)
        slots = [SPARSIFIERS.get(slot) for slot in recipe.sparsify] + [COMBINES.get(recipe.combine)]
        read = {
            parameter.name
            for slot in slots
            for parameter in inspect.signature(slot).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        assert recipe.space in SPACES.names()
        assert read - CONVENTIONS <= set(recipe.options)
        assert set(recipe.options) <= set(MergeSettings.model_fields) - COMMON_OPTIONS
        assert set(recipe.options) - read <= SETTINGS_OF_THE_ENGINE


# What slots read that is no setting: a dialect's conventions, and what the engine hands over.
CONVENTIONS = {"vote", "zero_sign", "extra"} | FACTS
SETTINGS_OF_THE_ENGINE = {"space", "scope"}
