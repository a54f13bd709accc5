"""How the updates of one module relate to one another, from their factors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.linalg import orthonormal


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of N updates: inner products <D_i, D_j>, overlaps of their spaces, ranks by energy share.

    None stands where an adapter has no such module.
    """

    inner: list[list[float]]
    columns: list[list[float | None]]
    rows: list[list[float | None]]
    ranks: list[list[float | None]]


def compare(updates: Sequence[Factors | None], shares: Sequence[float]) -> Comparison:
    """Compare the updates of one module; an adapter without it gives None.

    <D_i, D_j> = sum((B_i' B_j) * (A_i A_j')). An overlap is the mean squared cosine of the
    principal angles (Bjorck and Golub 1973), over the smaller of the two ranks.
    """
    doubles = [None if u is None else (u.B.double(), u.A.double()) for u in updates]
    left = [None if u is None else _columns(u.B) for u in updates]
    right = [None if u is None else _columns(u.A.T) for u in updates]
    return Comparison(
        inner=[[_inner(one, other) for other in doubles] for one in doubles],
        columns=[[_overlap(one, other) for other in left] for one in left],
        rows=[[_overlap(one, other) for other in right] for one in right],
        ranks=[_ranks(update, shares) for update in updates],
    )


def _inner(one: tuple[Tensor, Tensor] | None, other: tuple[Tensor, Tensor] | None) -> float:
    if one is None or other is None:
        return 0.0
    return float(((one[0].T @ other[0]) * (one[1] @ other[1].T)).sum())


def _columns(tall: Tensor) -> Tensor:
    basis = orthonormal(tall)
    columns: Tensor = basis.tall.double() @ basis.mix
    return columns


def _overlap(one: Tensor | None, other: Tensor | None) -> float | None:
    if one is None or other is None:
        return None
    return float((one.T @ other).square().sum()) / min(one.shape[1], other.shape[1])


def _ranks(update: Factors | None, shares: Sequence[float]) -> list[float | None]:
    """The smallest rank that keeps each share of the squared Frobenius norm."""
    if update is None:
        return [None] * len(shares)
    left = torch.linalg.qr(update.B.double()).R
    right = torch.linalg.qr(update.A.T.double()).R
    energy = torch.linalg.svdvals(left @ right.T).square().cumsum(0)
    return [float(1 + int((energy < share * energy[-1]).sum())) for share in shares]
