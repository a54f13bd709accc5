"""The updates of all languages in one space, seen in row tiles that are computed on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Combine = Callable[[list[Tensor]], Tensor]

# Elementwise work on a tile should stay within a core's share of the cache.
TILE_ELEMENTS = 1 << 17


@dataclass(frozen=True, slots=True)
class Stack:
    """N matrices X_i of one shape: language i's update of one module in some space.

    `block(i, rows)` gives rows [start, stop) of X_i as a new tensor that the caller may change.
    Tiles have a multiple of `group` rows. `sample(i)` is a fair sample of the entries of X_i, where
    there is one that costs less than X_i. `gathered` is a way to gather that costs less than to ask
    for every block. Nothing else is kept, so a stack of five dense updates takes no memory of its
    own.
    """

    module: str
    languages: tuple[str, ...]
    shape: tuple[int, int]
    block: Callable[[int, slice], Tensor]
    dtype: torch.dtype = torch.float32
    group: int = 1
    sample: Callable[[int], Tensor] | None = None
    gathered: Callable[[Combine], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.languages)

    def rows(self) -> Iterator[slice]:
        """The row ranges of the tiles, in order."""
        count, columns = self.shape
        groups = TILE_ELEMENTS // max(1, columns * self.group)
        step = self.group * max(1, groups)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def matrix(self, index: int) -> Tensor:
        """The whole X_i (rows x columns), a new tensor."""
        return self.block(index, slice(0, self.shape[0]))

    def blocks(self, index: int) -> Iterator[Tensor]:
        """X_i tile by tile, each a new tensor."""
        return (self.block(index, rows) for rows in self.rows())

    def each(self, change: Callable[[int, slice, Tensor], Tensor]) -> Stack:
        """The stack whose blocks are `change(i, rows, block)`; nothing is computed yet."""
        block = self.block

        def changed(index: int, rows: slice) -> Tensor:
            return change(index, rows, block(index, rows))

        return replace(self, block=changed, sample=None, gathered=None)

    def gather(self, combine: Combine) -> Tensor:
        """One matrix out of N: `combine` gets the N blocks of a tile and gives one.

        What it gives for an entry may depend on the N values of that entry alone, because entries
        may be handed to it in any company. It may change the blocks.
        """
        if self.gathered is not None:
            return self.gathered(combine)
        result: Tensor | None = None
        for rows in self.rows():
            tile = combine([self.block(index, rows) for index in range(len(self))])
            if result is None:
                result = tile.new_empty(self.shape, dtype=self.dtype)
            result[rows] = tile
        return torch.empty(self.shape, dtype=self.dtype) if result is None else result
