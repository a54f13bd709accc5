"""The `mergekit` dialect against mergekit itself: the same updates, the same masks, one module.

    python benchmarks/mergekit_parity.py

runs mergekit's own merge functions on plain tensors (base 0, so that a tensor is its update)
beside koinize's, for every recipe of the dialect, prints the largest difference relative to the
largest entry, and writes the same into benchmarks/results/mergekit_parity.md. mergekit is LGPL and
no part of koinize: without it the script says so and does nothing. Random masks are koinize's, put
in place of mergekit's draws.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from koinize.adapter import Factors
from koinize.merge.compose import merge_module
from koinize.merge.dialect import DIALECTS
from koinize.merge.masks import keep
from koinize.merge.recipe import RECIPES, merge_settings

RESULT = Path(__file__).parent / "results" / "mergekit_parity.md"
LANGUAGES = ("de", "en", "fr")
WEIGHTS = {"de": 1.0, "en": 0.5, "fr": 2.0}
OUTPUTS, INPUTS, RANK = 24, 40, 8  # three times the rank is the smaller side: nothing is cut
SEED, EPSILON, OUTLIERS = 3, 0.15, 0.02
DENSITIES = (1.0, 0.5)
# Our recipe -> mergekit's method, and its parameters where they are not its own defaults.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("task_arithmetic", {"normalize": True}),
    "sum": ("task_arithmetic", {}),
    "ties": ("ties", {}),
    "dare-ties": ("dare_ties", {}),
    "dare-linear": ("dare_linear", {}),
    "della": ("della", {}),
    "breadcrumbs": ("breadcrumbs", {}),
    "sce": ("sce", {}),
}


def updates() -> dict[str, Factors]:
    """Seeded factors of three languages."""
    random = torch.Generator().manual_seed(1)
    return {
        one: Factors(
            torch.randn(OUTPUTS, RANK, generator=random),
            torch.randn(RANK, INPUTS, generator=random),
        )
        for one in LANGUAGES
    }


def by_koinize(factors: dict[str, Factors], recipe: str, density: float) -> torch.Tensor:
    """The merged update in the dialect."""
    known = {"density": density, "seed": SEED, "epsilon": EPSILON, "outliers": OUTLIERS}
    read = {name: value for name, value in known.items() if name in RECIPES.get(recipe).options}
    weights = {} if recipe == "sce" else WEIGHTS  # mergekit's SCE has none
    settings = merge_settings(recipe=recipe, dialect="mergekit", weights=weights, **read)
    merged = merge_module("m", factors, settings).factors
    return merged.B @ merged.A


def by_mergekit(factors: dict[str, Factors], recipe: str, density: float) -> torch.Tensor:
    """mergekit's own result for the same update tensors."""
    from mergekit.merge_methods import registry
    from mergekit.merge_methods.base import TensorGroup

    method, parameters = METHODS[recipe]
    known = {
        "weight": WEIGHTS,
        "density": dict.fromkeys(LANGUAGES, density),
        "epsilon": dict.fromkeys(LANGUAGES, EPSILON),
        "gamma": dict.fromkeys(LANGUAGES, OUTLIERS),
        "select_topk": density,
    }
    merge = registry.get(method)
    names = {parameter.name for parameter in merge.spec.parameters}
    given = {**{key: value for key, value in known.items() if key in names}, **parameters}
    deltas = [factors[one].B @ factors[one].A for one in LANGUAGES]
    group = TensorGroup.from_tensors(
        [torch.zeros(OUTPUTS, INPUTS), *deltas], ids=["base", *LANGUAGES], base_index=0
    )
    drawn = iter(LANGUAGES)

    def ours(probability: torch.Tensor) -> torch.Tensor:
        chance = (
            float(probability.flatten()[0]) if probability.unique().numel() == 1 else probability
        )
        return keep(SEED, next(drawn), "m", 0, tuple(probability.shape), chance).float()

    with patch.object(torch, "bernoulli", ours):
        (result,) = merge([group], parameters=given)
    return result


def rows() -> Iterator[tuple[str, str, float, float]]:
    """(recipe, mergekit's method, density, largest relative difference)."""
    factors = updates()
    for recipe, (method, _) in METHODS.items():
        reads = "density" in RECIPES.get(recipe).options
        for density in DENSITIES if reads else DENSITIES[:1]:
            found = by_koinize(factors, recipe, density)
            wanted = by_mergekit(factors, recipe, density)
            yield recipe, method, density, float((found - wanted).abs().max() / wanted.abs().max())


def main() -> None:
    """Compare, print, keep; exit 1 if a difference is more than rounding explains."""
    if importlib.util.find_spec("mergekit") is None:
        sys.stdout.write("mergekit is not installed, so there is nothing to compare with.\n")
        return
    missing = set(DIALECTS["mergekit"].normalize) - set(METHODS)
    if missing:
        raise SystemExit(f"the dialect has recipes that are not compared: {sorted(missing)}")
    found = list(rows())
    version = importlib.metadata.version("mergekit")
    close = 64 * torch.finfo(torch.float32).eps
    text = "\n".join(
        [
            "# The `mergekit` dialect against mergekit",
            "",
            f"`python benchmarks/mergekit_parity.py` · mergekit {version}, torch "
            f"{torch.__version__}, {platform.machine()} · three updates of {OUTPUTS} x {INPUTS}, "
            f"rank {RANK}, weights {', '.join(f'{value:g}' for value in WEIGHTS.values())} (SCE "
            "has none), float32, koinize's masks in both",
            "",
            "| recipe | mergekit's method | density | largest difference / largest entry |",
            "|---|---|---|---|",
            *(f"| {recipe} | {method} | {d:g} | {gap:.1e} |" for recipe, method, d, gap in found),
            "",
            f"The most that rounding explains is taken to be {close:.1e}.",
            "",
        ]
    )
    sys.stdout.write(text)
    RESULT.write_text(text, encoding="utf-8")
    if any(gap > close for *_, gap in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
