"""The common column and row spaces of all updates (Core Space)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.linalg import (
    Basis,
    blocks_times,
    columns,
    diagonal_parts,
    gram,
    reciprocal,
    strong_eigh,
    times_blocks,
)
from koinize.merge.spaces._aligned import Aligned, Part


def space(factors: Sequence[Factors]) -> Aligned:
    """X_i = U_B' D_i V_A (at most sum of ranks, squared), float64; lossless.

    U_B and V_A are the left singular vectors of [B_1 ... B_N] and of [A_1' ... A_N']. Panariello
    et al. 2025, arXiv 2509.17786, takes the factors as they come, so that its result depends on the
    basis in which each adapter happened to be trained; here every update is first written in its
    own balanced factors, U sqrt(S) and sqrt(S) V', which only D_i determines.
    """
    ranks = [update.rank for update in factors]
    B = torch.cat([update.B for update in factors], dim=1)
    At = torch.cat([update.A for update in factors], dim=0).T
    inner_B, inner_A = gram(B), gram(At)
    changes = [
        _balancing(inner_B[part, part], inner_A[part, part]) for part in diagonal_parts(ranks)
    ]
    U = _basis(B, inner_B, [change[0] for change in changes])
    V = _basis(At, inner_A, [change[1] for change in changes])
    to_left = columns(U.mix.T @ inner_B, ranks)
    to_right = columns(V.mix.T @ inner_A, ranks)

    def block(index: int, rows: slice) -> Tensor:
        return to_left[index][rows] @ to_right[index].T

    def lift(merged: Factors) -> Factors:
        return Factors(B=U.times(merged.B), A=V.times(merged.A.T).T)

    shape = (U.mix.shape[1], V.mix.shape[1])
    return Aligned((Part(shape, block, dtype=torch.float64),), lift)


def _basis(tall: Tensor, inner: Tensor, changes: Sequence[Tensor]) -> Basis:
    """The left singular vectors of `tall`, its groups of columns changed; `inner` is its Gram."""
    values, vectors = strong_eigh(times_blocks(times_blocks(inner, changes).T, changes))
    return Basis(tall, blocks_times(changes, vectors * reciprocal(values.sqrt())))


def _balancing(inner_B: Tensor, inner_A: Tensor) -> tuple[Tensor, Tensor]:
    """The changes of basis b, a (rank x k, float64) that make B b = U sqrt(S), A' a = V sqrt(S).

    With B' B = E e E' and A A' = F f F': the core sqrt(e) E' F sqrt(f) = P S Q' gives
    b = E / sqrt(e) P sqrt(S) and a = F / sqrt(f) Q sqrt(S).
    """
    if not len(inner_B):
        return inner_B, inner_A
    e, E = strong_eigh(inner_B)
    f, F = strong_eigh(inner_A)
    P, S, Qt = torch.linalg.svd((e.sqrt()[:, None] * (E.T @ F)) * f.sqrt(), full_matrices=False)
    b = (E * reciprocal(e.sqrt())) @ (P * S.sqrt())
    a = (F * reciprocal(f.sqrt())) @ (Qt.T * S.sqrt())
    return b, a
