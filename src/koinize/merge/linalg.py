"""Orthonormal bases of tall factors, and low-rank approximations of matrices.

A tall matrix is never decomposed itself. Its Gram matrix in float64 is, which is as accurate for
factors that come in float32 or less, and twice as fast as QR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.masks import signs

# Directions weaker than this share of the strongest are rounding noise of float32 inputs.
NEGLIGIBLE = 1e-6
# A matrix with a shorter side than this is decomposed exactly, a larger one by random projection.
EXACT_SIDE = 512
OVERSAMPLING = 32
POWER_ITERATIONS = 2
# A Gram matrix is computed in this many groups of columns, if they are not too narrow to be fast,
# and from so many rows at a time: a float64 copy of all of them would be fresh memory, which costs
# as much as a third of the product.
GRAM_GROUPS = 7
GRAM_COLUMNS = 48
GRAM_ROWS = 384

Rank = Literal["full"] | int | float


@dataclass(frozen=True, slots=True)
class Basis:
    """Orthonormal columns `[T_1 ... T_N] @ mix`: T_i (n x m_i) float32, mix (sum m_i x k) float64.

    The T_i are never copied side by side: fresh memory costs more than the product.
    """

    talls: tuple[Tensor, ...]
    mix: Tensor

    def times(self, small: Tensor) -> Tensor:
        """`[T_1 ... T_N] @ mix @ small` in float32, without forming the basis itself."""
        mixed = (self.mix @ small.double()).float()
        parts = torch.split_with_sizes(mixed, [tall.shape[1] for tall in self.talls], dim=0)
        total = self.talls[0] @ parts[0]
        for tall, part in zip(self.talls[1:], parts[1:], strict=True):
            total.addmm_(tall, part)
        return total


@dataclass(frozen=True, slots=True)
class Approximation:
    """Factors of a low-rank approximation, and what it lost: squared Frobenius norms."""

    factors: Factors
    lost: float
    total: float

    @property
    def error(self) -> float:
        """Relative Frobenius error; 0 if nothing was cut."""
        return math.sqrt(self.lost / self.total) if self.lost > 0.0 else 0.0


def gram(*talls: Tensor) -> Tensor:
    """`T' @ T` of T = [T_1 ... T_N] in float64; of its two equal halves only one is computed."""
    size = sum(tall.shape[1] for tall in talls)
    result = talls[0].new_zeros((size, size), dtype=torch.float64)
    step = max(GRAM_COLUMNS, -(-size // GRAM_GROUPS))
    for first in range(0, talls[0].shape[0], GRAM_ROWS):
        double = _side_by_side([tall[first : first + GRAM_ROWS] for tall in talls]).double()
        for start in range(0, size, step):
            stop = min(start + step, size)
            result[start:stop, :stop].addmm_(double[:, start:stop].T, double[:, :stop])
    return result.tril() + result.tril(-1).T


def _side_by_side(pieces: Sequence[Tensor]) -> Tensor:
    """[P_1 ... P_N] in the memory order of the P_i: to turn them around would cost more."""
    if pieces[0].stride(1) == 1:
        return torch.cat(list(pieces), dim=1)
    return torch.cat([piece.T for piece in pieces], dim=0).T


def strong_eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, largest first, and vectors of a Gram matrix, without its rounding noise."""
    values, vectors = torch.linalg.eigh(symmetric)
    values, vectors = values.flip(0), vectors.flip(1)
    values = values.clamp_min(0.0)
    count = numerical_rank(values.sqrt())
    return values[:count], vectors[:, :count]


def root(symmetric: Tensor) -> Tensor:
    """The symmetric square root of a Gram matrix, which may be singular; float64."""
    values, vectors = torch.linalg.eigh(symmetric)
    halved: Tensor = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    return halved


def numerical_rank(singular: Tensor) -> int:
    """How many of the descending singular values stand above rounding noise; at least one."""
    return max(1, int(singular.gt(singular[0] * NEGLIGIBLE).sum()))


def orthonormal(tall: Tensor) -> Basis:
    """The left singular vectors of a tall matrix, strongest first."""
    values, vectors = strong_eigh(gram(tall))
    return Basis((tall,), vectors * reciprocal(values.sqrt()))


def columns(matrix: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """The matrix cut into groups of neighbouring columns."""
    return torch.split_with_sizes(matrix, list(counts), dim=1)


def diagonal_parts(counts: Sequence[int]) -> list[slice]:
    """Where the groups of neighbouring columns begin and end."""
    ends = list(accumulate(counts))
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def times_blocks(matrix: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """The matrix times the one that has these blocks on its diagonal and 0 elsewhere."""
    groups = columns(matrix, [block.shape[0] for block in blocks])
    return torch.cat([group @ block for group, block in zip(groups, blocks, strict=True)], dim=1)


def blocks_times(blocks: Sequence[Tensor], matrix: Tensor) -> Tensor:
    """The matrix with these blocks on its diagonal and 0 elsewhere, times `matrix`."""
    return times_blocks(matrix.T, [block.T for block in blocks]).T


def reciprocal(values: Tensor) -> Tensor:
    """1 / values, and 0 where a value is 0."""
    return torch.where(values > 0.0, 1.0 / values, torch.zeros_like(values))


def approximate(matrix: Tensor, limit: int, rank: Rank, module: str) -> Approximation:
    """The matrix as `B @ A` of the given rank, and never more than `limit`.

    rank: "full", a number, or the share of the squared Frobenius norm to keep. The best
    approximation if the shorter side is at most EXACT_SIDE; else by random projection with two
    power iterations (Halko et al. 2011, arXiv 0909.4061), keyed by the module's name.
    """
    side = min(matrix.shape)
    if rank == "full" and side <= limit:
        return _whole(matrix)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    largest = min(limit, side, rank if isinstance(rank, int) else limit)
    if side <= EXACT_SIDE or largest + OVERSAMPLING >= side:
        projection, sketch = None, wide
    else:
        projection = _range(wide, largest + OVERSAMPLING, module)
        sketch = projection.T @ wide
    squares, vectors = torch.linalg.eigh(gram(sketch.T))
    squares, vectors = squares.flip(0).clamp_min(0.0), vectors.flip(1)
    total = float(squares.sum()) if projection is None else _square_norm(wide)
    kept = _choose(squares, total, largest, rank)
    missed = 0.0 if projection is None else max(0.0, total - float(squares.sum()))
    lost = missed + float(squares[kept:].sum())
    roots = squares[:kept].sqrt().sqrt()
    left = vectors[:, :kept] * roots
    right = ((vectors[:, :kept] * reciprocal(roots)).T.to(sketch.dtype) @ sketch).float()
    tall = left.float() if projection is None else projection @ left.float()
    factors = Factors(B=tall, A=right) if wide is matrix else Factors(B=right.T, A=tall.T)
    return Approximation(factors, lost, total)


def _whole(matrix: Tensor) -> Approximation:
    """The matrix times an identity on its shorter side."""
    rows, columns = matrix.shape
    eye = torch.eye(min(rows, columns), device=matrix.device)
    matrix = matrix.float()
    factors = Factors(B=eye, A=matrix) if rows <= columns else Factors(B=matrix, A=eye)
    return Approximation(factors, 0.0, _square_norm(matrix))


def _square_norm(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix, dim=1).double().square().sum())


def _choose(squares: Tensor, total: float, largest: int, rank: Rank) -> int:
    """How many of the descending squared singular values to keep."""
    if not isinstance(rank, float):
        return largest
    reached = squares[:largest].cumsum(0) >= rank * total
    return int(reached.int().argmax()) + 1 if bool(reached.any()) else largest


def _range(wide: Tensor, size: int, module: str) -> Tensor:
    """Orthonormal columns (rows of `wide` x at most size) that span its strongest directions."""
    tall = signs(module, wide.shape[0], size).to(wide.device)
    for _ in range(POWER_ITERATIONS):
        tall = _orthonormal_columns(wide @ _orthonormal_columns(wide.T @ tall))
    return tall


def _orthonormal_columns(tall: Tensor) -> Tensor:
    basis = orthonormal(tall)
    return tall @ basis.mix.float()
