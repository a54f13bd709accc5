"""What is known of the plug-ins of each slot before one of them, and torch with it, is loaded.

A plug-in is one file; this is its entry, for everybody who plans a merge without a tensor:
identity, warnings, ranks, memory, refusals. `tests/contract/test_slots.py` holds each entry to what
the plug-in does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# What slots may ask for besides settings, by the name of their parameter: facts about a module, or
# about the whole adapters, that the engine finds before the module is merged.
FACTS = frozenset({"thresholds"})

NO_TRUNK = (
    "space 'factor' merges A and B apart, and the difference of two updates is no difference of "
    "their factors: there is no merge relative to a trunk in it"
)
OTHER_SPACES = "merge in space 'dense', 'knots' or 'core'"


@dataclass(frozen=True, slots=True)
class Space:
    """A space, whose X_i have `entries(outputs, inputs, ranks)` float32 entries each.

    full: an election there may have more directions than the updates together. apart: the X_i are
    factors, not updates: all have one rank, they have no difference from a trunk, and no merge
    there is one of another space.
    """

    entries: Callable[[int, int, Sequence[int]], int]
    full: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Sparsifier:
    """waits: entries wait for a threshold, which takes memory of its own.

    scoped: it may rank the entries of the whole adapter, and then asks for `thresholds`.
    needs_density: at density 1 nothing is left of what the recipe is known for.
    """

    waits: bool = False
    scoped: bool = False
    needs_density: bool = True


@dataclass(frozen=True, slots=True)
class Combine:
    """linear: it is sum c_i X_i, the same in all spaces. divides: by the sum of the weights."""

    linear: bool = False
    divides: bool = False


SPACES: Mapping[str, Space] = {
    "dense": Space(lambda outputs, inputs, ranks: outputs * inputs, full=True),  # noqa: ARG005
    "knots": Space(lambda outputs, inputs, ranks: min(sum(ranks), outputs) * inputs),
    "core": Space(lambda outputs, inputs, ranks: sum(ranks) ** 2),  # noqa: ARG005
    "factor": Space(lambda outputs, inputs, ranks: max(ranks) * (outputs + inputs), apart=True),
}
SPARSIFIERS: Mapping[str, Sparsifier] = {
    "trim": Sparsifier(waits=True, scoped=True, needs_density=False),
    "drop": Sparsifier(),
    "magprune": Sparsifier(),
    "breadcrumbs": Sparsifier(),
}
COMBINES: Mapping[str, Combine] = {
    "mean": Combine(linear=True, divides=True),
    "sum": Combine(linear=True),
    "elect": Combine(),
    "sce": Combine(),
    "tsv": Combine(),
    "isotropic": Combine(),
}
