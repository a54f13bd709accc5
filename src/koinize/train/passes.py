"""Which rows of which adapters share a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from koinize.train.schedule import Row

Share = tuple[int, list[Row]]
"""The place of an adapter among those that learn, and rows of it for one forward pass."""


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
