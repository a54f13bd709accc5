"""One module's merge: the recipe's slots, one after the other, then the change of rank."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.catalog import Catalog
from koinize.merge import place
from koinize.merge.approximation import Approximation, approximate
from koinize.merge.combine._linear import Linear
from koinize.merge.linalg import columns, gram
from koinize.merge.recipe import MergeSettings
from koinize.merge.slots import FACTS
from koinize.merge.spaces._aligned import Aligned, Part
from koinize.merge.stack import Stack
from koinize.merge.trunk import coefficient

SPACES: Catalog[Callable[..., Aligned]] = Catalog("koinize.merge.spaces", "space")
SPARSIFIERS: Catalog[Callable[..., Stack]] = Catalog("koinize.merge.sparsify", "sparsify")
COMBINES: Catalog[Callable[..., Tensor]] = Catalog("koinize.merge.combine", "combine")


def merge_module(
    module: str,
    updates: Mapping[str, Factors],
    settings: MergeSettings,
    facts: Mapping[str, object] | None = None,
    *,
    trunk: Factors | None = None,
    norm: bool = True,
) -> Approximation:
    """Merge the updates of one module, by language, as the settings say.

    All updates have the same outputs and inputs; their ranks may differ, and a language that does
    not adapt this module takes part with rank 0. "full" rank is the exact result, except where the
    space is dense: there it is cut to the sum of the ranks. facts: what some slot asks for
    besides settings, by name (koinize.merge.slots.FACTS). norm: whether the merge's
    norm is wanted also where nothing is cut; it may cost more than the merge.

    trunk: the update D_T that all of them started from. Then the recipe is applied to the
    D_i - D_T, and the result is D_T + scale x merge(D_i - D_T), to which rank and error belong.
    """
    languages = tuple(sorted(updates))
    factors = [_as_read(updates[language], settings) for language in languages]
    trunk = None if trunk is None else _as_read(trunk, settings)
    weights = [settings.weights.get(language, 1.0) for language in languages]
    recipe = settings.composition()
    combine = COMBINES.get(recipe.combine)
    if isinstance(combine, Linear) and recipe.on_factors:
        coefficients = [settings.scale * share for share in combine.coefficients(weights)]
        product = _side_by_side(factors, coefficients, trunk)
        return _compressed(module, product, settings, norm)
    known = facts or {}
    aligned = _with_options(SPACES.get(recipe.space), settings, known)(factors, trunk)
    merged = []
    for part in aligned.parts:
        stack = _stack(module, languages, part, factors)
        for name in recipe.sparsify:
            stack = _with_options(SPARSIFIERS.get(name), settings, known)(stack)
        merged.append(_with_options(combine, settings, known)(stack, part.weights(weights)))
    merged[-1].mul_(settings.scale)
    if len(merged) == 2:
        return _compressed(module, Factors(A=merged[0], B=merged[1]), settings, norm)
    still = trunk is not None and not merged[0].any()
    whole = merged[0] if aligned.add_trunk is None else aligned.add_trunk(merged[0])
    limit = sum(update.rank for update in factors) + (0 if trunk is None else trunk.rank)
    small = approximate(whole, limit, settings.rank, module, aligned.like)
    return replace(small, factors=aligned.lift(small.factors), still=still)


def stacks(
    module: str,
    updates: Mapping[str, Factors],
    settings: MergeSettings,
    trunk: Factors | None = None,
) -> list[Stack]:
    """The X_i of a module, in one part or two, as trimming over a whole adapter sees them."""
    languages = tuple(sorted(updates))
    factors = [_as_read(updates[language], settings) for language in languages]
    trunk = None if trunk is None else _as_read(trunk, settings)
    parts = SPACES.get(settings.composition().space)(factors, trunk).parts
    return [_stack(module, languages, part, factors) for part in parts]


def _stack(
    module: str, languages: tuple[str, ...], part: Part, factors: Sequence[Factors]
) -> Stack:
    """The part's X_i in tiles for a core, or each in one piece for a GPU."""
    name = f"{module}.{part.name}" if part.name else module
    group = part.group if place.on_cpu(factors[0].B) else part.shape[0]
    return Stack(name, languages, part.shape, part.block, part.dtype, group, part.sample)


def _as_read(update: Factors, settings: MergeSettings) -> Factors:
    """The update, without alpha / r for a dialect that ignores it."""
    if settings.resolve("folded"):
        return update
    return Factors(B=update.B / update.scale, A=update.A)


def _side_by_side(
    factors: Sequence[Factors], coefficients: Sequence[float], trunk: Factors | None
) -> Factors:
    """D_T + sum c_i (D_i - D_T) as one product: sum c_i B_i A_i, and what is left of the trunk."""
    if trunk is not None and (left := coefficient(coefficients)):
        factors, coefficients = [*factors, trunk], [*coefficients, left]
    counts = [update.rank for update in factors]
    B = factors[0].B.new_empty(factors[0].B.shape[0], sum(counts))
    for part, update, c in zip(columns(B, counts), factors, coefficients, strict=True):
        torch.mul(update.B, c, out=part)
    return Factors(B=B, A=torch.cat([update.A for update in factors], dim=0))


def _compressed(
    module: str, product: Factors, settings: MergeSettings, norm: bool
) -> Approximation:
    """A merge that is a product already: as it is, or its best approximation of lower rank."""
    if settings.rank == "full":
        total = float((gram(product.B) * gram(product.A.T)).sum()) if norm else 0.0
        return Approximation(product, lost=0.0, total=max(0.0, total))
    aligned = SPACES.get("core")([product])
    (part,) = aligned.parts
    middle = part.block(0, slice(0, part.shape[0]))
    small = approximate(middle, product.rank, settings.rank, module)
    return replace(small, factors=aligned.lift(small.factors))


def _with_options(
    slot: Callable[..., Any], settings: MergeSettings, facts: Mapping[str, object]
) -> Callable[..., Any]:
    """A slot names what it reads as its keyword-only parameters: settings, and facts if known."""
    parameters = inspect.signature(slot).parameters.values()
    names = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    options = {name: settings.resolve(name) for name in names - FACTS}
    return partial(slot, **options, **{name: facts[name] for name in names & facts.keys()})
