"""Which rows of which adapters share a forward pass, and what that is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from koinize.train.schedule import Row

Share = tuple[int, list[Row]]
"""The place of an adapter among those that learn, and rows of it for one forward pass."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass on the device: `ids` (sequences, width), the same number of sequences for
    each of its adapters; and for each of its n target tokens: its place among all ids, itself, the
    place of its adapter, and its weight in that adapter's loss.
    """

    ids: Tensor
    places: Tensor
    targets: Tensor
    owners: Tensor
    weights: Tensor


def length(row: Row) -> int:
    """Its tokens in a pass."""
    return row.tokens.longest


def grouped(shares: Sequence[Share], budget: int) -> Iterator[list[Share]]:
    """Joins neighbours while their rows, padded to one height and width, fit into the budget of
    tokens; a single share may exceed it.
    """
    group: list[Share] = []
    for share in shares:
        joined = [*group, share]
        if group and padded(joined) > budget:
            yield group
            joined = [share]
        group = joined
    if group:
        yield group


def largest(shares: Sequence[Share]) -> int:
    """Tokens of the largest pass that one adapter would need."""
    return max(padded([share]) for share in shares)


def padded(shares: Sequence[Share]) -> int:
    """Tokens of a pass over these, padded to one height and width."""
    height = max(len(rows) for _, rows in shares)
    width = max(length(row) for _, rows in shares for row in rows)
    return len(shares) * height * width
