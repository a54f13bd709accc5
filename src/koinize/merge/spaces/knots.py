"""The basis that the SVD of all updates side by side gives (KnOTS)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.linalg import (
    Basis,
    blocks_times,
    columns,
    gram,
    reciprocal,
    root,
    strong_eigh,
    times_blocks,
)
from koinize.merge.select import STRIDE
from koinize.merge.spaces._aligned import Aligned, Part


def space(factors: Sequence[Factors]) -> Aligned:
    """X_i = S V_i' (k x inputs) of [D_1 ... D_N] = U S [V_1' ... V_N'], k <= sum of the ranks.

    Stoica et al. 2025, arXiv 2410.19735. No D_i is formed: with B = [B_1 ... B_N] and L the block
    diagonal of the square roots of A_i A_i', the singular values of B L are S, and
    U = B L W / S, X_i = (U' B_i) A_i, where (B L)' (B L) = W S^2 W'.
    """
    talls = tuple(update.B for update in factors)
    inner = gram(*talls)
    L = [root(gram(update.A.T)) for update in factors]
    squares, W = strong_eigh(times_blocks(times_blocks(inner, L).T, L))
    mix = blocks_times(L, W * reciprocal(squares.sqrt()))
    ranks = [update.rank for update in factors]
    moved = [
        to_basis.float() @ update.A
        for to_basis, update in zip(columns(mix.T @ inner, ranks), factors, strict=True)
    ]
    basis = Basis(talls, mix)

    def block(index: int, rows: slice) -> Tensor:
        return moved[index][rows].clone()

    def lift(merged: Factors) -> Factors:
        return Factors(B=basis.times(merged.B), A=merged.A)

    def sample(index: int) -> Tensor:
        return moved[index].reshape(-1)[::STRIDE]

    return Aligned((Part((mix.shape[1], factors[0].A.shape[1]), block, sample=sample),), lift)
