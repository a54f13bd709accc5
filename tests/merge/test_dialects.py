"""Other tools' readings: PEFT itself in the same run, mergekit and KnOTS by their formulas."""

import numpy as np
import pytest
import torch

from koinize.adapter import Factors
from koinize.engine import merge_adapters
from koinize.errors import InputError
from koinize.merge.compose import merge_module
from koinize.merge.dialect import DIALECTS
from koinize.merge.masks import keep
from koinize.merge.recipe import RECIPES, merge_settings

LANGUAGES = ("de", "en", "fr")
WEIGHTS = {"de": 1.0, "en": 0.5, "fr": 2.0}
CLOSE = 64 * np.finfo(np.float32).eps


def updates(scale=1.0):
    random = torch.Generator().manual_seed(3)
    return {
        language: Factors(
            scale * torch.randn(9, 2, generator=random), torch.randn(2, 11, generator=random), scale
        )
        for language in LANGUAGES
    }


def deltas(factors):
    return np.stack([(factors[one].B @ factors[one].A).double().numpy() for one in LANGUAGES])


def merged(factors, **options):
    result = merge_module("m", factors, merge_settings(weights=WEIGHTS, **options))
    return (result.factors.B @ result.factors.A).double().numpy()


def assert_close(found, wanted):
    assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()


W = np.array(list(WEIGHTS.values()))[:, None, None]


def peft_ties(tensors, weights, density):
    """PEFT's `ties` on any tensors: signs of plain values, divided by the number that agree."""
    kept = []
    for tensor in tensors:
        mask = np.zeros(tensor.size)
        mask[np.argsort(-np.abs(tensor).ravel())[: int(density * tensor.size)]] = 1
        kept.append(tensor * mask.reshape(tensor.shape))
    kept = np.stack(kept)
    mask = np.sign(kept) == np.where(kept.sum(0) >= 0, 1, -1)
    return (kept * weights * mask).sum(0) / np.maximum(mask.sum(0), 1)


def test_peft_ties_acts_on_the_factors_as_stored():
    factors = updates(scale=0.5)
    A = [factors[one].A.double().numpy() for one in LANGUAGES]
    B = [factors[one].B.double().numpy() / 0.5 for one in LANGUAGES]
    root = np.sqrt(W * 0.5)
    wanted = peft_ties(B, root, 0.6) @ peft_ties(A, root, 0.6)
    assert_close(merged(factors, recipe="ties", dialect="peft", density=0.6), wanted)


def test_peft_ties_svd_with_weights_is_the_dense_space():
    factors = updates()
    wanted = peft_ties(deltas(factors), W, 1.0)
    found = merged(factors, recipe="ties", dialect="peft", space="dense")
    U, S, Vt = np.linalg.svd(wanted)
    assert_close(found, (U[:, :6] * S[:6]) @ Vt[:6])  # three adapters of rank 2


def test_a_negative_weight_keeps_its_sign_on_one_factor():
    factors = {"de": updates()["de"]}
    settings = merge_settings(recipe="sum", dialect="peft", weights={"de": -2.0})
    result = merge_module("m", factors, settings).factors
    assert_close((result.B @ result.A).numpy(), -2.0 * (factors["de"].B @ factors["de"].A).numpy())


def dropped(ds, density, seed=0):
    return np.stack(
        [
            d * keep(seed, one, "m", 0, d.shape, density).numpy()
            for one, d in zip(LANGUAGES, ds, strict=True)
        ]
    )


def restored(thin, ds):
    """Each update with the L1 norm that it had."""
    return thin * (np.abs(ds).sum((1, 2)) / np.abs(thin).sum((1, 2)))[:, None, None]


def consensus(weighted, divisor):
    """mergekit's `sum` consensus: the sum of those with the sign of the sum, over `divisor`."""
    mask = np.sign(weighted) == np.where(weighted.sum(0) >= 0, 1, -1)
    below = (divisor * mask).sum(0)
    return (weighted * mask).sum(0) / np.where(below == 0, 1, below)


def mergekit(oracle, recipe, ds, density):
    """mergekit's generalized task arithmetic, with the defaults of each of its methods."""
    if density >= 1.0 or recipe in ("mean", "sum"):
        thin = ds
    elif recipe in ("dare-ties", "dare-linear"):
        thin = restored(dropped(ds, density), ds)
    elif recipe == "della":
        chances = [oracle.della_probability(d, density, 0.1) for d in ds]
        masks = [
            keep(0, one, "m", 0, d.shape, torch.from_numpy(chance)).numpy()
            for one, d, chance in zip(LANGUAGES, ds, chances, strict=True)
        ]
        thin = restored(ds * np.stack(masks), ds)
    elif recipe == "breadcrumbs":
        thin = np.stack([oracle.breadcrumbs(d, density, 0.01) for d in ds])
    else:
        thin = np.stack([oracle.trim(d, density) for d in ds])
    weighted = thin * W
    if recipe in ("ties", "della"):
        return consensus(weighted, W)
    if recipe == "dare-ties":
        return consensus(weighted, 0 * W)  # not normalized
    return weighted.sum(0) / (W.sum() if recipe == "mean" else 1.0)


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("recipe", sorted(set(DIALECTS["mergekit"].normalize) - {"sce"}))
def test_mergekit_by_its_formulas(oracle, recipe, density):
    factors = spacious()
    reads = "density" in RECIPES.get(recipe).options
    options = {"density": density} if reads else {}
    found = merged(factors, recipe=recipe, dialect="mergekit", **options)
    assert_close(found, mergekit(oracle, recipe, deltas(factors), density))


def test_mergekit_sce_has_no_weights(oracle):
    factors = spacious()
    settings = merge_settings(recipe="sce", dialect="mergekit", density=0.5)
    result = merge_module("m", factors, settings).factors
    wanted = oracle.sce(list(deltas(factors)), [1.0] * 3, 0.5)
    assert_close((result.B @ result.A).double().numpy(), wanted)


def spacious():
    """A third, empty direction in each adapter lets the merge keep all its 9 ranks."""
    return {
        one: Factors(torch.cat([f.B, 0 * f.B[:, :1]], 1), torch.cat([f.A, f.A[:1]]))
        for one, f in updates().items()
    }


def knots_ties(ds, density):
    """KnOTS' own code: S V' of the SVD side by side, one threshold per adapter, plain signs."""
    U, S, Vt = np.linalg.svd(np.concatenate(list(ds), axis=1), full_matrices=False)
    strong = S > 1e-5
    X = np.stack(np.split(S[strong, None] * Vt[strong], len(ds), axis=1))
    k = X[0].size - int(X[0].size * density)
    flat = np.sort(np.abs(X).reshape(len(ds), -1), axis=1)
    kept = np.where(np.abs(X) >= flat[:, k - 1][:, None, None], X, 0.0) if density < 1 else X
    sign = np.sign(kept.sum(0))
    sign[sign == 0] = np.sign(sign.sum())
    agree = np.where(sign > 0, kept > 0, kept < 0)
    return U[:, strong] @ ((kept * agree).sum(0) / np.maximum(agree.sum(0), 1))


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_knots_ties_of_one_module(density):
    """Alpha is ignored, and int(density n) + 1 entries are kept."""
    factors = updates(scale=0.25)
    wanted = knots_ties(deltas(factors) / 0.25, density)
    settings = merge_settings(recipe="knots-ties", dialect="knots", density=density, scope="module")
    result = merge_module("m", factors, settings).factors
    assert_close((result.B @ result.A).double().numpy(), wanted)


def test_trimming_over_the_whole_adapter(tmp_path, save_adapter, make_modules, oracle):
    """One threshold for both modules, as if their S V' were one vector."""
    density = 0.3
    adapters, loaded = {}, {}
    for seed, language in enumerate(LANGUAGES):
        loaded[language] = make_modules(seed)
        adapters[language] = save_adapter(language, loaded[language])
    out = merge_adapters(
        adapters, recipe="knots-ties", density=density, scope="adapter", out=tmp_path / "out"
    ).out
    spaces = {
        name: oracle.knots([loaded[one][name][0] @ loaded[one][name][1] for one in LANGUAGES])
        for name in loaded["de"]
    }
    kept = {name: [] for name in spaces}
    for index in range(len(LANGUAGES)):
        everything = np.concatenate([X[index].ravel() for _, X in spaces.values()])
        count = int(density * everything.size)
        lowest = np.sort(np.abs(everything))[-count]
        for name, (_, X) in spaces.items():
            # The threshold is float32: half a step below keeps the entry that it belongs to.
            kept[name].append(np.where(np.abs(X[index]) >= lowest * (1 - 1e-6), X[index], 0.0))
    from koinize.adapter import open_adapter

    with open_adapter(out) as adapter:
        for name, (U, _) in spaces.items():
            wanted = U @ oracle.elect(kept[name], [1.0, 1.0, 1.0])
            found = adapter.factors(name)
            assert_close((found.B @ found.A).double().numpy(), wanted)


def test_an_adapter_is_trimmed_over_the_modules_that_it_has(tmp_path, save_adapter, make_modules):
    """Alone or beside one with more modules, it keeps the same entries."""
    modules = make_modules(0)
    name = min(modules)
    few = save_adapter("few", {name: modules[name]})
    more = save_adapter("more", make_modules(1))
    options = {"recipe": "ties", "density": 0.4, "scope": "adapter", "rank": 2}
    alone = merge_adapters({"de": few}, out=tmp_path / "alone", **options).out
    both = {"de": few, "en": more}
    beside = merge_adapters(both, out=tmp_path / "beside", weights={"en": 0.0}, **options).out
    from koinize.adapter import open_adapter

    with open_adapter(alone) as one, open_adapter(beside) as other:
        wanted, found = one.factors(name), other.factors(name)
        assert_close((found.B @ found.A).double().numpy(), (wanted.B @ wanted.A).double().numpy())


def test_refusals():
    with pytest.raises(InputError) as caught:
        merge_settings(recipe="core-ties", dialect="peft")
    assert str(caught.value) == (
        "dialect 'peft' has no recipe 'core-ties'; it has dare-linear, dare-ties, "
        "magnitude-prune, sum, ties"
    )
    ranks = updates()
    ranks["en"] = Factors(ranks["en"].B[:, :1], ranks["en"].A[:1])
    with pytest.raises(InputError) as caught:
        merged(ranks, recipe="ties", space="factor")
    assert str(caught.value) == (
        "space 'factor' adds up factors, and their ranks differ: [1, 2]; merge in space 'dense', "
        "'knots' or 'core'"
    )
