"""Merges generated modules of many kinds, to see that every merge is one.

    python benchmarks/merge_stress.py > benchmarks/results/merge_stress.md   # 10,000 modules
    python benchmarks/merge_stress.py --modules 300 --tall 5                 # a first look

Each module draws a recipe, an output rank, a density, a dtype, a shape and adapters: their number,
ranks, spectra, what they share, and what is wrong with them (directions that are zero or doubled,
an adapter of zeros, one that cancels another, sizes that differ by powers of ten). A merge passes
if it raises nothing, if its factors are finite, of the rank that was asked for and no larger than
the updates explain, and if the error that it states is the one of its result, which is compared
with the merge of the same at full rank. `--tall` more are five adapters of 64 directions on modules
of 2048 outputs or inputs, whose Gram matrices of 320 x 320 are where a library was found to fail.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from koinize.adapter import Factors
from koinize.errors import KoinizeError
from koinize.merge import decompose
from koinize.merge.compose import merge_module
from koinize.merge.recipe import RECIPES, MergeSettings, merge_settings

SPECTRA = ("flat", "exponential", "power law", "step", "one direction", "steep")
FLAWS = (
    "none", "none", "none", "zero directions", "double directions", "an adapter of zeros",
    "one cancels another", "copies", "sizes apart", "few entries",
)  # fmt: skip
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
LANGUAGES = ("de", "en", "fr", "ja", "zh")


@dataclass(frozen=True)
class Case:
    """One module to merge, and what was drawn for it."""

    updates: dict[str, Factors]
    settings: MergeSettings
    kinds: dict[str, str]


def spectrum(kind: str, rank: int) -> np.ndarray[Any, Any]:
    """Singular values, largest 1."""
    index = np.arange(rank)
    return {
        "flat": np.ones(rank),
        "exponential": 10.0 ** (-3.0 * index / max(1, rank - 1)),
        "power law": 1.0 / (1.0 + index),
        "step": np.where(index < (rank + 1) // 2, 1.0, 1e-4),
        "one direction": np.where(index == 0, 1.0, 1e-7),
        "steep": 10.0 ** (-12.0 * index / max(1, rank - 1)),
    }[kind]


def adapters(
    random: np.random.Generator, shape: tuple[int, int], ranks: list[int], kinds: dict[str, str]
) -> dict[str, Factors]:
    """Updates with a part in common, rounded to the dtype."""
    outputs, inputs = shape
    most, shared = max(ranks), random.choice([0.0, 0.5, 0.99])
    common_B, common_A = random.normal(size=(outputs, most)), random.normal(size=(most, inputs))
    made = {}
    for number, (language, rank) in enumerate(zip(LANGUAGES, ranks, strict=False)):
        values = np.sqrt(spectrum(kinds["spectrum"], rank))
        own_B, own_A = random.normal(size=(outputs, rank)), random.normal(size=(rank, inputs))
        B = (shared * common_B[:, :rank] + (1 - shared) * own_B) * values * 0.02
        A = (shared * common_A[:rank] + (1 - shared) * own_A) * values[:, None] * 0.02
        B, A = flawed(random, kinds["flaw"], number, B, A)
        made[language] = rounded(B, A, kinds["dtype"])
    if kinds["flaw"] == "one cancels another" and len(made) > 1:
        made["en"] = Factors(B=-made["de"].B, A=made["de"].A.clone())
    if kinds["flaw"] == "copies":
        made = dict.fromkeys(made, made["de"])
    return made


def flawed(
    random: np.random.Generator,
    flaw: str,
    number: int,
    B: np.ndarray[Any, Any],
    A: np.ndarray[Any, Any],
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The factors with what is wrong with them."""
    half = (B.shape[1] + 1) // 2
    if flaw == "zero directions":
        B[:, half:] = 0.0
    elif flaw == "double directions":
        B[:, half:], A[half:] = B[:, : B.shape[1] - half], A[: B.shape[1] - half]
    elif flaw == "an adapter of zeros" and number == 0:
        B[:] = 0.0
    elif flaw == "sizes apart":
        B *= 10.0 ** (-3.0 * number)
    elif flaw == "few entries":
        B, A = (factor * (random.random(factor.shape) < 0.05) for factor in (B, A))
    return B, A


def rounded(B: np.ndarray[Any, Any], A: np.ndarray[Any, Any], dtype: str) -> Factors:
    """Factors in float32 that hold what a file of this dtype would."""
    as_stored, as_read = DTYPES[dtype], torch.float32
    return Factors(
        B=torch.from_numpy(B).to(as_stored).to(as_read),
        A=torch.from_numpy(A).to(as_stored).to(as_read),
    )


def options(random: np.random.Generator, recipe: str, largest: int) -> dict[str, object]:
    """A density, a rank and whatever else the recipe reads."""
    density = float(random.choice([0.05, 0.1, 0.2, 0.5, 0.9, 1.0]))
    known = {
        "density": density,
        "epsilon": min(density, 1 - density) / 2 or 0.1,
        "outliers": 0.01,
        "seed": int(random.integers(100)),
        "rescale": str(random.choice(["inverse", "l1"])),
        "sign": str(random.choice(["total", "frequency"])),
        "normalize": str(random.choice(["weights", "count", "none"])),
    }
    read = RECIPES.get(recipe).options
    chosen: dict[str, object] = {key: one for key, one in known.items() if key in read}
    rank = random.choice(["full", "number", "share"])
    chosen["rank"] = {"full": "full", "number": max(1, largest), "share": 0.9}[rank]
    chosen["weights"] = {"de": float(random.choice([1.0, 0.3, -0.5])), "en": 1.0}
    return chosen


def drawn(number: int, tall: bool) -> Case:
    """The case of this number, always the same one."""
    random = np.random.default_rng([number, tall])
    recipe = RECIPES.names()[number % len(RECIPES.names())]
    if tall:
        recipe = ("knots-ties", "core-ties", "knots-dare-ties")[number % 3]
    kinds = {
        "recipe": recipe,
        "spectrum": str(random.choice(SPECTRA)),
        "flaw": str(random.choice(FLAWS)),
        "dtype": str(random.choice(list(DTYPES))),
    }
    if tall:
        shape = (2048, 1024) if number % 2 else (1024, 2048)
        ranks = [64] * 5
    else:
        shape = int(random.integers(1, 200)), int(random.integers(1, 200))
        ranks = [int(random.choice([1, 2, 4, 8, 16, 40])) for _ in range(random.integers(1, 6))]
    chosen = options(random, recipe, max(ranks))
    if len(ranks) == 1:
        chosen["weights"] = {"de": 1.0}
    settings = merge_settings(recipe=recipe, **chosen)
    return Case(adapters(random, shape, ranks, kinds), settings, kinds)


def fault(case: Case, number: int) -> str:
    """What is wrong with the merge of this case; empty if nothing is."""
    try:
        merged = merge_module(f"module.{number}", case.updates, case.settings)
        full = case.settings.model_copy(update={"rank": "full"})
        whole = merge_module(f"module.{number}", case.updates, full)
    except (KoinizeError, ArithmeticError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    factors = merged.factors
    if not (factors.B.isfinite().all() and factors.A.isfinite().all()):
        return "not finite"
    together = sum(update.rank for update in case.updates.values())
    side = min(factors.B.shape[0], factors.A.shape[1])
    if factors.rank > case.settings.largest_rank(together, side):
        return f"rank {factors.rank}"
    if whole.lost == 0.0:  # else the merge of full rank is an approximation as well
        target = whole.factors.B.double() @ whole.factors.A.double()
        lost = float((target - factors.B.double() @ factors.A.double()).norm())
        # Of updates that cancel less is left than their own rounding.
        norm = sum(float((one.B.double() @ one.A.double()).norm()) for one in case.updates.values())
        stated = math.sqrt(max(0.0, merged.lost))
        if abs(lost - stated) > 1e-4 * norm + 1e-30:
            return f"states an error of {stated:.3e}, has {lost:.3e} of {norm:.3e}"
    return ""


def cases(modules: int, tall: int) -> Iterator[tuple[int, bool]]:
    """(number, whether it is one of the tall ones)."""
    yield from ((number, False) for number in range(modules))
    yield from ((number, True) for number in range(tall))


class Largest:
    """The largest difference that a sound result had, in what `decompose` allows."""

    def __init__(self) -> None:
        self.share, self._close = 0.0, decompose._close

    def __call__(self, one: torch.Tensor, other: torch.Tensor, size: float = 1.0) -> bool:
        """What `decompose` asks, noted."""
        close = self._close(one, other, size)
        allowed = torch.finfo(one.dtype).eps * len(one) * size
        if close and allowed:
            self.share = max(self.share, float((one - other).norm()) / allowed)
        return close


def main() -> None:
    """Print the table; end with 1 if a merge failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--modules", type=int, default=10_000)
    parser.add_argument("--tall", type=int, default=150)
    given = parser.parse_args()
    torch.set_num_threads(1)
    decompose._close = largest = Largest()  # type: ignore[assignment]
    counts: dict[str, Counter[str]] = {}
    repeated, faults, started = Counter[str](), list[str](), time.process_time()
    for number, tall in cases(given.modules, given.tall):
        case = drawn(number, tall)
        with decompose.repeats() as found:
            wrong = fault(case, number)
        repeated.update(found)
        for kind, name in case.kinds.items():
            counts.setdefault(kind, Counter())[name] += 1
        if wrong:
            faults.append(f"{number}{' tall' if tall else ''} {case.settings.describe()} "
                          f"{case.kinds}: {wrong}")  # fmt: skip
            print(faults[-1], file=sys.stderr)
    seconds = time.process_time() - started
    print("# Generated modules, merged\n\n    python benchmarks/merge_stress.py", *sys.argv[1:])
    print(f"\n{given.modules + given.tall} modules, each merged at its rank and at full rank, in "
          f"{seconds:.0f} CPU seconds with one thread: **{len(faults)} failed**.")  # fmt: skip
    print(f"Decompositions repeated by another library: {dict(repeated) or 'none'}. The largest "
          f"difference of a sound one was {largest.share:.1f} of {decompose.SLACK:g} roundings "
          "times its size.\n")  # fmt: skip
    for kind, names in counts.items():
        print(f"- {kind}: {', '.join(f'{name} {count}' for name, count in sorted(names.items()))}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
