"""What every space gives: coordinates of the updates, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from koinize.adapter import Factors
from koinize.merge import place

# Products of few rows are slow, and of many they leave the cache.
FEWEST_ROWS, MOST_ROWS = 32, 128
GROUP_ELEMENTS = 1 << 18


@dataclass(frozen=True, slots=True)
class Part:
    """Matrices X_i of one shape, as blocks of rows; `weights` are what w_i becomes on them.

    Rows are computed in groups of `group`; asking for a part of a group costs as much as all of it.
    `sample(i)` is a fair sample of the entries of X_i, for who wants to know their distribution.
    Where there are two, each has a `name`, so that random masks of the two are independent.
    """

    shape: tuple[int, int]
    block: Callable[[int, slice], Tensor]
    dtype: torch.dtype = torch.float32
    weights: Callable[[Sequence[float]], list[float]] = list
    group: int = 1
    sample: Callable[[int], Tensor] | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Aligned:
    """Coordinates of N updates of one module: one part, or the two factors (A, B) apart.

    lift: factors of a merged X to factors of the merged update. With one part it keeps singular
    values, so the truncation of X is the truncation of the update. like: a product that a merged X
    resembles, where X is too large to look for its strongest directions without a hint.
    add_trunk: a merged X to that of the trunk and the merge together; X is used up, and what is
    given may have more rows and columns, for which `lift` is meant then.
    """

    parts: tuple[Part, ...]
    lift: Callable[[Factors], Factors]
    like: Factors | None = None
    add_trunk: Callable[[Tensor], Tensor] | None = None


def multiplied(products: Sequence[Factors], sample: Callable[[int], Tensor] | None = None) -> Part:
    """X_i = B_i A_i, formed a group of rows at a time; on a GPU, whole.

    A matrix library splits a product by its shape, and the last bit with it: on some processors a
    row of a product is not the product of that row. So products are always taken over the same
    rows, whatever tiles somebody asks for.
    """
    count, columns = products[0].B.shape[0], products[0].A.shape[1]
    height = group_rows(columns) if place.on_cpu(products[0].B) else count

    def block(index: int, rows: slice) -> Tensor:
        B, A = products[index].B, products[index].A
        first = rows.start - rows.start % height
        last = min(count, -(-rows.stop // height) * height)
        whole = B.new_empty(last - first, columns)
        for start in range(first, last, height):
            group = slice(start - first, start - first + height)
            torch.mm(B[start : start + height], A, out=whole[group])
        return whole[rows.start - first : rows.stop - first]

    return Part((count, columns), block, group=height, sample=sample)


def group_rows(columns: int) -> int:
    """How many rows of an update with so many columns a core always computes together.

    A multiple of 16, so that in any block every group begins on a line of the cache.
    """
    rows = GROUP_ELEMENTS // columns
    return min(MOST_ROWS, max(FEWEST_ROWS, rows - rows % 16))


def adding(trunk: Factors) -> Callable[[Tensor], Tensor]:
    """Adds a trunk, given in coordinates of which X may lack the last rows and columns."""
    rows, columns = trunk.B.shape[0], trunk.A.shape[1]

    def add(merged: Tensor) -> Tensor:
        lacking = (0, columns - merged.shape[1], 0, rows - merged.shape[0])
        return (pad(merged, lacking) if any(lacking) else merged).addmm_(trunk.B, trunk.A)

    return add
