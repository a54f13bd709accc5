"""The common column and row spaces of all updates (Core Space)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.linalg import (
    Basis,
    blocks_times,
    columns,
    diagonal_parts,
    gram,
    reciprocal,
    root,
    strong_eigh,
    times_blocks,
)
from koinize.merge.spaces._aligned import Aligned, Part


def space(factors: Sequence[Factors]) -> Aligned:
    """X_i = U_B' D_i V_A (at most sum of ranks, squared); lossless.

    U_B and V_A are the left singular vectors of [B_1 ... B_N] and of [A_1' ... A_N']. Panariello
    et al. 2025, arXiv 2509.17786, takes the factors as they come, so that its result depends on the
    basis in which each adapter happened to be trained; here every update is first written in its
    own balanced factors, U sqrt(S) and sqrt(S) V', which only D_i determines.
    """
    ranks = [update.rank for update in factors]
    B = tuple(update.B for update in factors)
    At = tuple(update.A.T for update in factors)
    inner_B, inner_A = gram(*B), gram(*At)
    changes = [
        _balancing(inner_B[part, part], inner_A[part, part]) for part in diagonal_parts(ranks)
    ]
    balanced = [change[0].shape[1] for change in changes]
    U, left = _basis(B, inner_B, [change[0] for change in changes])
    V, right = _basis(At, inner_A, [change[1] for change in changes])
    to_left, to_right = columns(left.float(), balanced), columns(right.float(), balanced)

    def block(index: int, rows: slice) -> Tensor:
        return to_left[index][rows] @ to_right[index].T

    def lift(merged: Factors) -> Factors:
        return Factors(B=U.times(merged.B), A=V.times(merged.A.T).T)

    shape = (U.mix.shape[1], V.mix.shape[1])
    return Aligned((Part(shape, block),), lift)


def _basis(
    talls: tuple[Tensor, ...], inner: Tensor, changes: Sequence[Tensor]
) -> tuple[Basis, Tensor]:
    """The left singular vectors U of T C, with T = [T_1 ... T_N] and C block diagonal: `changes`.

    `inner` is T' T. From C' T' T C = W S^2 W' follow U = T C W / S and the rest of the
    decomposition, U' T C = S W', which is also given.
    """
    squares, W = strong_eigh(times_blocks(times_blocks(inner, changes).T, changes))
    S = squares.sqrt()
    return Basis(talls, blocks_times(changes, W * reciprocal(S))), (W * S).T


def _balancing(inner_B: Tensor, inner_A: Tensor) -> tuple[Tensor, Tensor]:
    """The changes of basis b, a (rank x k, float64) that make B b = U sqrt(S), A' a = V sqrt(S).

    With L L' = B' B and L' (A A') L = P S^2 P', they are a = L P / sqrt(S) and b = A A' a / S.
    """
    if not len(inner_B):
        return inner_B, inner_A
    L = root(inner_B)
    squares, P = strong_eigh(L.T @ inner_A @ L)
    inverse = reciprocal(squares.sqrt())
    a = (L @ P) * inverse.sqrt()
    return (inner_A @ a) * inverse, a
