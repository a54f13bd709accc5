"""The updates themselves, D_i = B_i A_i: the definition of TIES and DARE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.spaces._aligned import Aligned, Part

# Products are always taken over the same groups of rows, so that the way a matrix library splits
# its work, and with it the last bit, does not depend on the tiles that somebody asks for.
GROUP_ROWS = 32


def space(factors: Sequence[Factors]) -> Aligned:
    """X_i = D_i (outputs x inputs), formed a few rows at a time."""
    shape = (factors[0].B.shape[0], factors[0].A.shape[1])

    def block(index: int, rows: slice) -> Tensor:
        B, A = factors[index].B, factors[index].A
        first = rows.start - rows.start % GROUP_ROWS
        last = min(shape[0], -(-rows.stop // GROUP_ROWS) * GROUP_ROWS)
        whole = B.new_empty(last - first, shape[1])
        for start in range(first, last, GROUP_ROWS):
            group = slice(start - first, start - first + GROUP_ROWS)
            torch.mm(B[start : start + GROUP_ROWS], A, out=whole[group])
        return whole[rows.start - first : rows.stop - first]

    return Aligned((Part(shape, block, group=GROUP_ROWS),), lift=lambda merged: merged)
