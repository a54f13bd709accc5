"""The common column and row spaces of all updates (Core Space)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

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
from koinize.merge.spaces._aligned import Aligned, Part, adding
from koinize.merge.trunk import branch


def space(factors: Sequence[Factors], trunk: Factors | None = None) -> Aligned:
    """X_i = U_B' D_i V_A (at most sum of ranks, squared); lossless.

    U_B and V_A are the left singular vectors of [B_1 ... B_N] and of [A_1' ... A_N']. Panariello
    et al. 2025, arXiv 2509.17786, takes the factors as they come, so that its result depends on the
    basis in which each adapter happened to be trained; here every update is first written in its
    own balanced factors, U sqrt(S) and sqrt(S) V', which only D_i determines.
    """
    if trunk is not None:
        return _from_trunk(factors, trunk)
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
    return _aligned(U, V, columns(left.float(), balanced), columns(right.float(), balanced))


def _from_trunk(factors: Sequence[Factors], trunk: Factors) -> Aligned:
    """X_i = U_B' (D_i - D_T) V_A, with D_i - D_T = b_i A_i + B_T a_i (koinize.merge.trunk).

    These factors are columns of [b_1 ... b_N B_T], and columns, or sums of two, of
    [a_1' ... a_N' A_T'], so that no Gram matrix has the trunk's factors more than once.
    """
    branches = [branch(update, trunk) for update in factors]
    B = (*(steps.B for steps in branches), trunk.B)
    At = (*(steps.A.T for steps in branches), trunk.A.T)
    inner_B, inner_A = gram(*B), gram(*At)
    changes = []
    for of_B, of_A in _picks(factors, trunk, inner_B, inner_A):
        b, a = _balancing(of_B.T @ inner_B @ of_B, of_A.T @ inner_A @ of_A)
        changes.append((of_B @ b, of_A @ a))
    balanced = [change[0].shape[1] for change in changes]
    last_B, last_A = (slice(len(inner) - trunk.rank, None) for inner in (inner_B, inner_A))
    U, left = _shared_basis(B, inner_B, torch.cat([change[0] for change in changes], dim=1))
    V, right = _shared_basis(At, inner_A, torch.cat([change[1] for change in changes], dim=1))
    U = completed(U, inner_B, last_B, root(inner_A[last_A, last_A]))
    V = completed(V, inner_A, last_A, root(inner_B[last_B, last_B]))
    there = Factors(B=(U.mix.T @ inner_B[:, last_B]).float(), A=(inner_A[last_A] @ V.mix).float())
    aligned = _aligned(U, V, columns(left.float(), balanced), columns(right.float(), balanced))
    return replace(aligned, add_trunk=adding(there))


def _picks(
    factors: Sequence[Factors], trunk: Factors, inner_B: Tensor, inner_A: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """By language, what picks its [b_i B_T] out of the columns of all, and its [A_i' a_i']."""
    one_B, one_A = (torch.zeros_like(inner).fill_diagonal_(1.0) for inner in (inner_B, inner_A))
    ranks = [update.rank for update in factors]
    *own_B, last_B = columns(one_B, [*ranks, trunk.rank])
    *own_A, last_A = columns(one_A, [*(max(rank, trunk.rank) for rank in ranks), trunk.rank])
    for rank, b, a in zip(ranks, own_B, own_A, strict=True):
        whole, shared = a[:, :rank].clone(), min(rank, trunk.rank)
        whole[:, :shared] += last_A[:, :shared]  # A_i = a_i + A_T
        yield torch.cat([b, last_B], dim=1), torch.cat([whole, a[:, : trunk.rank]], dim=1)


def _aligned(U: Basis, V: Basis, to_left: Sequence[Tensor], to_right: Sequence[Tensor]) -> Aligned:
    """X_i = left_i right_i', and the way back."""

    def block(index: int, rows: slice) -> Tensor:
        return to_left[index][rows] @ to_right[index].T

    def lift(merged: Factors) -> Factors:
        return Factors(B=U.times(merged.B), A=V.times(merged.A.T).T)

    return Aligned((Part((len(to_left[0]), len(to_right[0])), block),), lift)


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


def _shared_basis(talls: tuple[Tensor, ...], inner: Tensor, change: Tensor) -> tuple[Basis, Tensor]:
    """The same for a C of any form, which may have more columns than rows.

    With L L' = C C', L' T' T L = W S^2 W' has the same S, and U = T L W / S.
    """
    L = root(change @ change.T)
    squares, W = strong_eigh(L.T @ inner @ L)
    mix = L @ (W * reciprocal(squares.sqrt()))
    # In the memory order in which `_basis` gives it, for products of some of its rows.
    return Basis(talls, mix), (change.T @ inner @ mix).T


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
