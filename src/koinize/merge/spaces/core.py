"""The common column and row spaces of all updates (Core Space)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

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
from koinize.merge.spaces._aligned import Aligned, adding, multiplied
from koinize.merge.trunk import branch

Pick = Callable[[Tensor], Tensor]  # some of the columns of a matrix


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
    one_B, one_A = (torch.zeros_like(inner).fill_diagonal_(1.0) for inner in (inner_B, inner_A))
    for of_B, of_A in _picks([update.rank for update in factors], trunk.rank):
        b, a = _balancing(of_B(of_B(inner_B).T), of_A(of_A(inner_A).T))
        changes.append((of_B(one_B) @ b, of_A(one_A) @ a))
    balanced = [change[0].shape[1] for change in changes]
    last_B, last_A = (slice(len(inner) - trunk.rank, None) for inner in (inner_B, inner_A))
    U, left = _shared_basis(B, inner_B, torch.cat([change[0] for change in changes], dim=1))
    V, right = _shared_basis(At, inner_A, torch.cat([change[1] for change in changes], dim=1))
    U = completed(U, inner_B, last_B, root(inner_A[last_A, last_A]))
    V = completed(V, inner_A, last_A, root(inner_B[last_B, last_B]))
    there = Factors(B=(U.mix.T @ inner_B[:, last_B]).float(), A=(inner_A[last_A] @ V.mix).float())
    aligned = _aligned(U, V, columns(left.float(), balanced), columns(right.float(), balanced))
    return replace(aligned, add_trunk=adding(there))


def _picks(ranks: Sequence[int], shared: int) -> Iterator[tuple[Pick, Pick]]:
    """By language, what picks its [b_i B_T] out of the columns of all, and its [A_i' a_i'].

    Of matrices whose columns are as [b_1 ... b_N B_T] and [a_1' ... a_N' A_T']; shared: B_T's.
    """
    *parts_B, last_B = diagonal_parts([*ranks, shared])
    *parts_A, last_A = diagonal_parts([*(max(rank, shared) for rank in ranks), shared])
    for rank, part_B, part_A in zip(ranks, parts_B, parts_A, strict=True):
        yield (
            partial(_own_left, own=part_B, last=last_B),
            partial(_own_right, own=part_A, last=last_A, rank=rank),
        )


def _own_left(matrix: Tensor, own: slice, last: slice) -> Tensor:
    return torch.cat([matrix[:, own], matrix[:, last]], dim=1)


def _own_right(matrix: Tensor, own: slice, last: slice, rank: int) -> Tensor:
    steps, trunk = matrix[:, own], matrix[:, last]
    whole, both = steps[:, :rank].clone(), min(rank, trunk.shape[1])
    whole[:, :both] += trunk[:, :both]  # A_i = a_i + A_T
    return torch.cat([whole, steps[:, : trunk.shape[1]]], dim=1)


def _aligned(U: Basis, V: Basis, to_left: Sequence[Tensor], to_right: Sequence[Tensor]) -> Aligned:
    """X_i = left_i right_i', and the way back."""

    def lift(merged: Factors) -> Factors:
        return Factors(B=U.times(merged.B), A=V.times(merged.A.T).T)

    products = [Factors(left, right.T) for left, right in zip(to_left, to_right, strict=True)]
    return Aligned((multiplied(products),), lift)


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
    return Basis(talls, mix), (change.T @ (inner @ mix)).T


def _balancing(inner_B: Tensor, inner_A: Tensor) -> tuple[Tensor, Tensor]:
    """The changes of basis b, a (rank x k, float64) that make B b = U sqrt(S), A' a = V sqrt(S).

    With L L' = B' B and L' (A A') L = P S^2 P', they are a = L P / sqrt(S) and b = A A' a / S.
    Where B A is 0 although B and A are not, as in a sum of updates that cancel, all of S is
    rounding, and to divide by it would make an update of it.
    """
    if not len(inner_B):
        return inner_B, inner_A
    L = root(inner_B)
    rounding = torch.finfo(L.dtype).eps * float(inner_B.trace() * inner_A.trace())
    squares, P = strong_eigh(L.T @ inner_A @ L, rounding)
    inverse = reciprocal(squares.sqrt())
    a = (L @ P) * inverse.sqrt()
    return (inner_A @ a) * inverse, a
