"""The updates themselves, D_i = B_i A_i: the definition of TIES and DARE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.select import STRIDE
from koinize.merge.spaces._aligned import Aligned, adding, multiplied
from koinize.merge.trunk import difference


def space(factors: Sequence[Factors], trunk: Factors | None = None) -> Aligned:
    """X_i = D_i (outputs x inputs), formed a few rows at a time; on a GPU, whole.

    With a trunk, X_i = D_i - D_T.
    """
    products = factors if trunk is None else [difference(one, trunk) for one in factors]
    shape = (factors[0].B.shape[0], factors[0].A.shape[1])

    def sample(index: int) -> Tensor:
        # Entries whose row and column leave the same remainder: each row and each column has its
        # share, whichever of them are large.
        B, A = products[index].B, products[index].A
        remainders = range(min(STRIDE, *shape))
        return torch.cat([(B[k::STRIDE] @ A[:, k::STRIDE]).reshape(-1) for k in remainders])

    whole_sum = Factors(
        B=torch.cat([update.B for update in factors], dim=1),
        A=torch.cat([update.A for update in factors], dim=0),
    )
    add_trunk = None if trunk is None else adding(trunk)
    # Of branches too: trunk and merge resemble their mean.
    return Aligned(
        (multiplied(products, sample),), lambda merged: merged, like=whole_sum, add_trunk=add_trunk
    )
