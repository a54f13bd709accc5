"""Merge candidates: names and grids, spelled out as one setting each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

PAPERS_EIGHT = tuple(
    {"recipe": recipe, "density": density}
    for recipe in ("ties", "dare-ties", "knots-ties", "knots-dare-ties")
    for density in (0.5, 1.0)
)
"""The eight configurations of arXiv 2601.16127; at density 1.0 six of them are distinct."""

AVERAGE = "average"
"""The mean of a trunk and its branches, as an entry of `merge.candidates`."""


def expand(entry: object) -> tuple[object, ...]:
    """One entry of `merge.candidates` as the settings it stands for.

    `paper` -> the paper's eight; `average` -> nothing yet, because its scale depends on how many
    branches there are; a recipe's name -> that recipe with its defaults; a mapping -> the product
    over those of its values that are lists, but for `groups`. Anything else is left for validation
    to refuse.
    """
    if entry == "paper":
        return PAPERS_EIGHT
    if entry == AVERAGE:
        return ()
    if isinstance(entry, str):
        return ({"recipe": entry},)
    if isinstance(entry, Mapping):
        return tuple(_product(entry))
    if isinstance(entry, tuple):
        return entry
    raise ValueError("expected 'paper', 'average', a recipe's name, or a mapping of merge settings")


def _product(entry: Mapping[str, object]) -> Iterator[dict[str, object]]:
    grid = {key: value for key, value in entry.items() if isinstance(value, list)}
    grid.pop("groups", None)  # which are a list of lists themselves
    if empty := [key for key, value in grid.items() if not value]:
        raise ValueError(f"the list under '{empty[0]}' is empty, so there is nothing to try")
    for values in product(*grid.values()):
        yield {**entry, **dict(zip(grid, values, strict=True))}
