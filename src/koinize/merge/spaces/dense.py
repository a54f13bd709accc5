"""The updates themselves, D_i = B_i A_i: the definition of TIES and DARE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge import place
from koinize.merge.select import STRIDE
from koinize.merge.spaces._aligned import Aligned, Part, adding
from koinize.merge.trunk import difference

# Products are always taken over the same groups of rows, so that the way a matrix library splits
# its work, and with it the last bit, does not depend on the tiles that somebody asks for. Products
# of few rows are slow, and of many they leave the cache.
FEWEST_ROWS, MOST_ROWS = 32, 128
GROUP_ELEMENTS = 1 << 18


def space(factors: Sequence[Factors], trunk: Factors | None = None) -> Aligned:
    """X_i = D_i (outputs x inputs), formed a few rows at a time; on a GPU, whole.

    With a trunk, X_i = D_i - D_T.
    """
    products = factors if trunk is None else [difference(one, trunk) for one in factors]
    shape = (factors[0].B.shape[0], factors[0].A.shape[1])
    height = group_rows(shape[1]) if place.on_cpu(factors[0].B) else shape[0]

    def block(index: int, rows: slice) -> Tensor:
        B, A = products[index].B, products[index].A
        first = rows.start - rows.start % height
        last = min(shape[0], -(-rows.stop // height) * height)
        whole = B.new_empty(last - first, shape[1])
        for start in range(first, last, height):
            group = slice(start - first, start - first + height)
            torch.mm(B[start : start + height], A, out=whole[group])
        return whole[rows.start - first : rows.stop - first]

    def sample(index: int) -> Tensor:
        # Entries whose row and column leave the same remainder: each row and each column has its
        # share, whichever of them are large.
        B, A = products[index].B, products[index].A
        remainders = range(min(STRIDE, *shape))
        return torch.cat([(B[k::STRIDE] @ A[:, k::STRIDE]).reshape(-1) for k in remainders])

    part = Part(shape, block, group=height, sample=sample)
    whole_sum = Factors(
        B=torch.cat([update.B for update in factors], dim=1),
        A=torch.cat([update.A for update in factors], dim=0),
    )
    add_trunk = None if trunk is None else adding(trunk)
    # Of branches too: trunk and merge resemble their mean.
    return Aligned((part,), lambda merged: merged, like=whole_sum, add_trunk=add_trunk)


def group_rows(columns: int) -> int:
    """How many rows of an update with so many columns a core always computes together."""
    return min(MOST_ROWS, max(FEWEST_ROWS, GROUP_ELEMENTS // columns))
