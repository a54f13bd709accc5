"""How the updates of one module relate to one another, from their factors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.decompose import eigh, svd
from koinize.merge.linalg import diagonal_parts, gram, reciprocal, strong_eigh
from koinize.merge.spaces import core
from koinize.merge.trunk import difference

SAMPLED_ROWS = 64  # of every module, on which signs are counted
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of N updates D_i of one module; an update that is not there has rank 0.

    inner: <D_i, D_j>. columns, rows: the cosines of the principal angles between the column (B) and
    the row (A) spaces, largest first. opposed, counted: entries whose signs differ, and entries
    that neither update leaves at 0, scaled up from the sampled rows to the module. energy: the
    squared singular values of each update, largest first.
    """

    inner: list[list[float]]
    columns: list[list[list[float]]]
    rows: list[list[list[float]]]
    opposed: list[list[float]]
    counted: list[list[float]]
    energy: list[list[float]]


def compare(updates: Sequence[Factors | None]) -> Comparison:
    """Compare the updates of one module; an adapter without it gives None.

    <D_i, D_j> = sum((B_i' B_j) * (A_i A_j')); the principal angles are those of Bjorck and Golub
    1973. Everything but the signs follows from the Gram matrices of all B and of all A.
    """
    present = [update for update in updates if update is not None]
    ranks = [0 if update is None else update.rank for update in updates]
    inner_B = gram(torch.cat([update.B for update in present], dim=1))
    inner_A = gram(torch.cat([update.A for update in present], dim=0).T)
    parts = diagonal_parts(ranks)
    opposed, counted = _signs(updates)
    return Comparison(
        inner=[[float((inner_B[i, j] * inner_A[i, j]).sum()) for j in parts] for i in parts],
        columns=_cosines(inner_B, parts),
        rows=_cosines(inner_A, parts),
        opposed=opposed,
        counted=counted,
        energy=[_energy(inner_B[i, i], inner_A[i, i]) for i in parts],
    )


def differences(updates: Sequence[Factors | None], trunk: Factors) -> list[Factors | None]:
    """The D_i - D_T, each with as many columns as it has directions, so none if it is 0."""
    return [None if one is None else _minimal(difference(one, trunk)) for one in updates]


def _minimal(product: Factors) -> Factors:
    """The same product with linearly independent columns and rows."""
    aligned = core.space([product])
    (part,) = aligned.parts
    X = part.block(0, slice(0, part.shape[0]))
    if not X.any():
        return Factors(B=product.B[:, :0], A=product.A[:0])
    return aligned.lift(Factors(B=X, A=torch.eye(X.shape[1])))


def _cosines(inner: Tensor, parts: Sequence[slice]) -> list[list[list[float]]]:
    """Cosines of the principal angles between all spaces, from their common Gram matrix."""
    bases = [_orthonormalizing(inner[part, part]) for part in parts]

    def between(i: int, j: int) -> list[float]:
        product = bases[i].T @ inner[parts[i], parts[j]] @ bases[j]
        found: list[float] = svd(product)[1].clamp_max(1.0).tolist()
        return found

    indexes = range(len(parts))
    return [[between(i, j) if bases[i].numel() and bases[j].numel() else [] for j in indexes]
            for i in indexes]  # fmt: skip


def _orthonormalizing(inner: Tensor) -> Tensor:
    """M such that the columns of X M are orthonormal and span those of X, of whose Gram this is."""
    if not len(inner):
        return inner
    values, vectors = strong_eigh(inner)
    return vectors * reciprocal(values.sqrt())


def _energy(inner_B: Tensor, inner_A: Tensor) -> list[float]:
    """The squared singular values of B A, which are the eigenvalues of B' B A A'."""
    if not len(inner_B):
        return []
    values, vectors = eigh(inner_B)
    root = (vectors * values.clamp_min(0.0).sqrt()).T
    found: list[float] = eigh(root @ inner_A @ root.T)[0].clamp_min(0.0).tolist()
    return found[::-1]


def _signs(updates: Sequence[Factors | None]) -> tuple[list[list[float]], list[list[float]]]:
    """Opposed and counted entries of every pair, on the same rows of each."""
    like = next(update for update in updates if update is not None)
    outputs, inputs = like.B.shape[0], like.A.shape[1]
    rows = _rows(outputs)
    signs = torch.zeros(len(updates), len(rows) * inputs)
    for place, update in zip(signs, updates, strict=True):
        if update is not None:
            place.copy_((update.B[rows] @ update.A).sign_().reshape(-1))
    # Whole numbers below 2^24, which float32 adds up exactly.
    agreeing_less_opposed, there = (signs @ signs.T).double(), signs.abs()
    counted = (there @ there.T).double()
    scale = outputs / len(rows)
    opposed = (counted - agreeing_less_opposed) / 2
    return (scale * opposed).tolist(), (scale * counted).tolist()


def _rows(outputs: int) -> list[int]:
    """Rows spread evenly and without a period, which might be that of the attention heads."""
    if outputs <= SAMPLED_ROWS:
        return list(range(outputs))
    return sorted({int(index * GOLDEN % 1.0 * outputs) for index in range(SAMPLED_ROWS)})
