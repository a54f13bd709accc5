"""One module's merge: the recipe's slots, one after the other, then the change of rank."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from koinize.adapter import Factors
from koinize.catalog import Catalog
from koinize.merge.combine._linear import Linear
from koinize.merge.linalg import Approximation, approximate
from koinize.merge.spaces._aligned import Aligned
from koinize.merge.stack import Stack
from koinize.recipe import RECIPES, MergeSettings

SPACES: Catalog[Callable[[Sequence[Factors]], Aligned]] = Catalog("koinize.merge.spaces", "space")
SPARSIFIERS: Catalog[Callable[..., Stack]] = Catalog("koinize.merge.sparsify", "sparsify")
COMBINES: Catalog[Callable[..., torch.Tensor]] = Catalog("koinize.merge.combine", "combine")


def merge_module(
    module: str, updates: Mapping[str, Factors], settings: MergeSettings
) -> Approximation:
    """Merge the updates of one module, by language, as the settings say.

    All updates have the same outputs and inputs; their ranks may differ, and a language that does
    not adapt this module takes part with rank 0. "full" rank is the exact result, except where the
    space is dense: there it is at most the sum of the ranks, as everywhere.
    """
    languages = tuple(sorted(updates))
    factors = [updates[language] for language in languages]
    weights = [settings.weights.get(language, 1.0) for language in languages]
    recipe = RECIPES.get(settings.recipe)
    combine = COMBINES.get(recipe.combine)
    limit = sum(update.rank for update in factors)
    if isinstance(combine, Linear) and not recipe.sparsify:
        scaled = [settings.scale * number for number in combine.coefficients(weights)]
        return _on_factors(module, factors, scaled, settings)
    aligned = SPACES.get(recipe.space)(factors)
    stack = Stack(module, languages, aligned.shape, aligned.block, aligned.dtype)
    for name in recipe.sparsify:
        stack = _with_options(SPARSIFIERS.get(name), settings)(stack)
    merged = _with_options(combine, settings)(stack, weights).mul_(settings.scale)
    small = approximate(merged, limit, settings.rank, module)
    return replace(small, factors=aligned.lift(small.factors))


def _on_factors(
    module: str, factors: Sequence[Factors], coefficients: Sequence[float], settings: MergeSettings
) -> Approximation:
    """A linear combination: the factors side by side, compressed only if a rank is asked for."""
    joined = Factors(
        B=torch.cat([u.B * c for u, c in zip(factors, coefficients, strict=True)], dim=1),
        A=torch.cat([update.A for update in factors], dim=0),
    )
    if settings.rank == "full":
        return Approximation(joined, lost=0.0, total=0.0)
    aligned = SPACES.get("core")([joined])
    small = approximate(
        aligned.block(0, slice(0, aligned.shape[0])), joined.rank, settings.rank, module
    )
    return replace(small, factors=aligned.lift(small.factors))


def _with_options(slot: Callable[..., Any], settings: MergeSettings) -> Callable[..., Any]:
    """A slot names the settings that it reads as its keyword-only parameters."""
    parameters = inspect.signature(slot).parameters.values()
    names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return partial(slot, **{name: getattr(settings, name) for name in names})
