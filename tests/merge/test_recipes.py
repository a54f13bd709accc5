"""Every recipe against the oracle's definition, on random factors, with the same masks."""

import numpy as np
import pytest
import torch

from koinize.adapter import Factors
from koinize.merge.compose import merge_module
from koinize.merge.masks import keep
from koinize.merge.recipe import RECIPES, merge_settings

LANGUAGES = ("de", "en", "fr")
WEIGHTS = {"de": 1.0, "en": 0.5, "fr": 2.0}
OUTPUTS, INPUTS, RANK = 20, 30, 3
# float32 factors, sums of at most 60 products, and no cancellation beyond a few digits.
CLOSE = 60 * np.finfo(np.float32).eps


def updates():
    random = torch.Generator().manual_seed(7)
    return {
        language: Factors(
            torch.randn(OUTPUTS, RANK, generator=random),
            torch.randn(RANK, INPUTS, generator=random),
        )
        for language in LANGUAGES
    }


def deltas(factors):
    return [
        factors[lang].B.double().numpy() @ factors[lang].A.double().numpy() for lang in LANGUAGES
    ]


def product(factors):
    return factors.B.double().numpy() @ factors.A.double().numpy()


def dropped(oracle, matrices, density, seed):
    masks = [keep(seed, language, "m", 0, matrices[0].shape, density) for language in LANGUAGES]
    return [oracle.drop(m, k.numpy(), density) for m, k in zip(matrices, masks, strict=True)]


def expected(oracle, recipe, density, ds, rank=RANK):
    """The recipe by its name, in the oracle's words; seed 11, DELLA's epsilon and outliers .1.

    rank: of each of the updates.
    """
    weights = list(WEIGHTS.values())
    space, _, method = recipe.partition("-") if recipe[:4] in ("knot", "core") else ("", "", recipe)
    if space == "knots":
        U, ds = oracle.knots(ds)
        back = lambda X: U @ X  # noqa: E731
    elif space == "core":
        U, V, ds = oracle.core(ds, [rank] * len(ds))
        back = lambda X: U @ X @ V.T  # noqa: E731
    else:
        back = lambda X: X  # noqa: E731
    trimmed = [oracle.trim(d, density) for d in ds]
    ways = {
        "mean": lambda: oracle.mean(ds, weights),
        "sum": lambda: oracle.weighted_sum(ds, weights),
        "ties": lambda: oracle.elect(trimmed, weights),
        "magnitude-prune": lambda: oracle.weighted_sum(trimmed, weights),
        "dare-ties": lambda: oracle.elect(dropped(oracle, ds, density, 11), weights),
        "dare-linear": lambda: oracle.mean(dropped(oracle, ds, density, 11), weights),
        "della": lambda: oracle.elect(magpruned(oracle, ds, density), weights),
        "breadcrumbs": lambda: oracle.weighted_sum(
            [oracle.breadcrumbs(d, density, 0.1) for d in ds], weights
        ),
        "sce": lambda: oracle.sce(ds, weights, density),
        "tsv": lambda: oracle.tsv(ds, weights, density, [rank] * len(ds)),
        "iso": lambda: oracle.isotropic(ds, weights, np.linalg.matrix_rank(sum(ds))),
    }
    return back(ways[method]())


def magpruned(oracle, matrices, density):
    if density >= 1.0:
        return matrices
    kept = []
    for language, matrix in zip(LANGUAGES, matrices, strict=True):
        probability = oracle.della_probability(matrix, density, 0.1)
        mask = keep(11, language, "m", 0, matrix.shape, torch.from_numpy(probability)).numpy()
        kept.append(np.where(mask, matrix / probability, 0.0))
    return kept


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("recipe", RECIPES.names())
def test_recipe_is_what_its_paper_says(oracle, recipe, density):
    options = {"density": density, "seed": 11, "epsilon": 0.1, "outliers": 0.1}
    used = {key: options[key] for key in RECIPES.get(recipe).options if key in options}
    settings = merge_settings(recipe=recipe, weights=WEIGHTS, scale=1.5, **used)
    factors = updates()
    exact = 1.5 * expected(oracle, recipe, used.get("density", 1.0), deltas(factors))
    merged = merge_module("m", factors, settings)
    best, error = oracle.truncate(exact, merged.factors.rank)
    assert np.abs(product(merged.factors) - best).max() <= CLOSE * np.abs(exact).max()
    assert merged.error == pytest.approx(error, abs=1e-6)
    assert merged.factors.rank <= RANK * len(LANGUAGES)


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("recipe", RECIPES.names())
def test_with_a_trunk_the_recipe_is_for_the_differences(oracle, recipe, density, near):
    """D_T + scale x merge(D_i - D_T), of adapters near the trunk, and of any others."""
    random = torch.Generator().manual_seed(8)
    trunk = Factors(
        torch.randn(OUTPUTS, RANK, generator=random), torch.randn(RANK, INPUTS, generator=random)
    )
    factors = updates()
    if near:
        factors = {
            one: Factors(trunk.B + step.B / 16, trunk.A + step.A / 16)
            for one, step in factors.items()
        }
    options = {"density": density, "seed": 11, "epsilon": 0.1, "outliers": 0.1}
    used = {key: options[key] for key in RECIPES.get(recipe).options if key in options}
    settings = merge_settings(recipe=recipe, weights=WEIGHTS, scale=1.5, **used)
    start = product(trunk)
    differences = [delta - start for delta in deltas(factors)]
    moved = expected(oracle, recipe, used.get("density", 1.0), differences, rank=2 * RANK)
    exact = start + 1.5 * moved
    merged = merge_module("m", factors, settings, trunk=trunk)
    assert merged.factors.rank <= RANK * (len(LANGUAGES) + 1)
    best, error = oracle.truncate(exact, merged.factors.rank)
    assert np.abs(product(merged.factors) - best).max() <= CLOSE * np.abs(exact).max()
    assert merged.error == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_a_lower_rank_is_the_best_approximation_of_the_full_one(oracle, recipe):
    settings = merge_settings(recipe=recipe, weights=WEIGHTS)
    full = expected(oracle, recipe, 1.0, deltas(updates()))
    merged = merge_module("m", updates(), settings.model_copy(update={"rank": 4}))
    best, error = oracle.truncate(full, 4)
    assert merged.factors.rank == 4
    if recipe == "iso":  # all singular values are equal, so any four directions are the best
        best = product(merged.factors)
    assert np.abs(product(merged.factors) - best).max() <= CLOSE * np.abs(full).max()
    assert merged.error == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_an_energy_rank_is_the_smallest_that_keeps_this_share(oracle, recipe):
    full = expected(oracle, recipe, 1.0, deltas(updates()))
    squares = np.linalg.svd(full, compute_uv=False) ** 2
    # Dense election has a longer spectrum than the ranks together, 9.
    for share in (0.8, 0.999):
        wanted = 1 + int((squares.cumsum() < share * squares.sum()).sum())
        settings = merge_settings(recipe=recipe, weights=WEIGHTS, rank=share)
        merged = merge_module("m", updates(), settings)
        assert merged.factors.rank == wanted
        assert merged.error <= (1 - share) ** 0.5


def test_trim_on_paper():
    # |x|: 4 3 2 1, half of four is two.
    from koinize.merge.sparsify.trim import sparsify
    from koinize.merge.stack import Stack

    x = torch.tensor([[1.0, -4.0], [3.0, -2.0]])
    stack = Stack("m", ("en",), (2, 2), lambda i, rows: x[rows].clone())
    assert sparsify(stack, density=0.5).matrix(0).tolist() == [[0.0, -4.0], [3.0, 0.0]]
    assert sparsify(stack, density=0.2).matrix(0).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_elect_on_paper():
    # columns: 1 - 3 + 1 < 0, so only -3 counts; 2 + 2 - 1 > 0, so (2 + 2) / 2; 1 - 1 elects +.
    from koinize.merge.combine.elect import combine
    from koinize.merge.stack import Stack

    xs = [torch.tensor([row]) for row in ([1.0, 2.0, 1.0], [-3.0, 2.0, -1.0], [1.0, -1.0, 0.0])]
    stack = Stack("m", ("de", "en", "fr"), (1, 3), lambda i, rows: xs[i][rows].clone())
    assert combine(stack, [1.0, 1.0, 1.0]).tolist() == [[-3.0, 2.0, 1.0]]
    # With weights 1, 0, 0 the first adapter comes back.
    assert combine(stack, [1.0, 0.0, 0.0]).tolist() == [[1.0, 2.0, 1.0]]
    # Weight -1 turns the third around: 1 - 3 - 1 < 0 gives (-3 - 1) / 2; 2 + 2 + 1 > 0 gives 5 / 3.
    merged = combine(stack, [1.0, 1.0, -1.0])
    assert merged[0].tolist() == pytest.approx([-2.0, 5.0 / 3.0, 1.0])


def test_the_masks_of_two_factors_are_drawn_apart():
    # Square factors of ones: were A and B masked alike, their merged entries would be zero alike.
    # One language, density 1/2, 64 x 64: equal by chance in half of the entries, +- 6 sigma.
    ones = torch.ones(64, 64)
    settings = merge_settings(recipe="dare-linear", density=0.5, space="factor", seed=11)
    merged = merge_module("m", {"de": Factors(ones, ones)}, settings).factors
    alike = ((merged.A == 0) == (merged.B == 0)).double().mean()
    assert abs(alike - 0.5) < 6 * 0.5 / 64


@pytest.mark.parametrize("density", [1.0, 0.4])
@pytest.mark.parametrize("recipe", sorted(set(RECIPES.names()) - {"mean", "dare-linear", "sce"}))
def test_a_language_without_the_module_changes_nothing(recipe, density):
    """Its update is 0, so it takes no part. (A mean counts it, and so does SCE's variance.)"""
    options = {"density": density, "seed": 11}
    used = {key: options[key] for key in RECIPES.get(recipe).options if key in options}
    settings = merge_settings(recipe=recipe, **used)
    factors = updates()
    nothing = Factors(torch.zeros(OUTPUTS, 0), torch.zeros(0, INPUTS))
    without = product(merge_module("m", factors, settings).factors)
    beside = product(merge_module("m", {**factors, "ja": nothing}, settings).factors)
    assert np.abs(beside - without).max() <= CLOSE * np.abs(without).max()


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_a_negative_weight_makes_nothing_explode(recipe):
    """No entry is larger than all adapters' together (an isotropic merge: in norm)."""
    used = {key: 11 for key in RECIPES.get(recipe).options if key == "seed"}
    settings = merge_settings(recipe=recipe, weights={"de": 1.0, "en": -0.5, "fr": 1.0}, **used)
    factors = updates()
    merged = product(merge_module("m", factors, settings).factors)
    whole = sum(np.linalg.norm(delta) for delta in deltas(factors))
    assert np.linalg.norm(merged) <= 2 * whole
