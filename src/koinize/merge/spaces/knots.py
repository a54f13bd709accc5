"""The basis that the SVD of all updates side by side gives (KnOTS)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.linalg import (
    Basis,
    blocks_times,
    columns,
    completed,
    diagonal_parts,
    gram,
    reciprocal,
    root,
    strong_eigh,
    times_blocks,
)
from koinize.merge.select import STRIDE
from koinize.merge.spaces._aligned import Aligned, Part, adding
from koinize.merge.trunk import Branch, branch


def space(factors: Sequence[Factors], trunk: Factors | None = None) -> Aligned:
    """X_i = S V_i' (k x inputs) of [D_1 ... D_N] = U S [V_1' ... V_N'], k <= sum of the ranks.

    Stoica et al. 2025, arXiv 2410.19735. No D_i is formed: [D_1 ... D_N] = B M, where
    B = [B_1 ... B_N] and M is the block diagonal of the A_i. With L L' = M M', the singular values
    of B L are S, and U = B L W / S, X_i = (U' B_i) A_i, where (B L)' (B L) = W S^2 W'.

    With a trunk, of the D_i - D_T = b_i A_i + B_T a_i (koinize.merge.trunk). B_T is in all of them,
    and so B = [b_1 ... b_N B_T], and M has the a_i side by side in its last rows.
    """
    branches = [] if trunk is None else [branch(update, trunk) for update in factors]
    talls = tuple(update.B for update in branches or factors)
    if trunk is not None:
        talls = (*talls, trunk.B)
    inner = gram(*talls)
    L = _roots(factors) if trunk is None else [_root(factors, branches, trunk.rank)]
    squares, W = strong_eigh(times_blocks(times_blocks(inner, L).T, L))
    mix = blocks_times(L, W * reciprocal(squares.sqrt()))
    to_basis = [part.float() for part in columns(mix.T @ inner, [one.shape[1] for one in talls])]
    moved = [part @ one.A for part, one in zip(to_basis[: len(factors)], factors, strict=True)]
    basis, add_trunk = Basis(talls, mix), None
    if trunk is not None:
        for one, steps in zip(moved, branches, strict=True):
            one.addmm_(to_basis[-1], steps.A[: trunk.rank])
        shared = slice(len(inner) - trunk.rank, len(inner))
        basis = completed(basis, inner, shared, root(gram(trunk.A.T)))
        add_trunk = adding(Factors(B=(basis.mix.T @ inner[:, shared]).float(), A=trunk.A))

    def block(index: int, rows: slice) -> Tensor:
        return moved[index][rows].clone()

    def lift(merged: Factors) -> Factors:
        return Factors(B=basis.times(merged.B), A=merged.A)

    def sample(index: int) -> Tensor:
        return moved[index].reshape(-1)[::STRIDE]

    part = Part((mix.shape[1], factors[0].A.shape[1]), block, sample=sample)
    return Aligned((part,), lift, add_trunk=add_trunk)


def _roots(factors: Sequence[Factors]) -> list[Tensor]:
    """The blocks of L where M is the block diagonal of the A_i."""
    return [root(gram(update.A.T)) for update in factors]


def _root(factors: Sequence[Factors], branches: Sequence[Branch], rank: int) -> Tensor:
    """L where M has the a_i too, in its last rows, as many as the trunk's rank."""
    stacked = sum(update.rank for update in factors)
    whole = factors[0].A.new_zeros((stacked + rank, stacked + rank), dtype=torch.float64)
    parts, last = diagonal_parts([update.rank for update in factors]), slice(stacked, None)
    for part, update, steps in zip(parts, factors, branches, strict=True):
        inner, own = gram(update.A.T, steps.A[:rank].T), update.rank
        whole[part, part] = inner[:own, :own]
        whole[part, last] = inner[:own, own:]
        whole[last, part] = inner[own:, :own]
        whole[last, last] += inner[own:, own:]
    return root(whole)
