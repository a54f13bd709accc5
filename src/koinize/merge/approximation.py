"""Low-rank approximations: exact for small matrices, from a block Krylov space for large ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.linalg import eigh, gram, orthonormal, reciprocal, times
from koinize.merge.masks import signs

# A matrix with a shorter side than this is decomposed exactly.
EXACT_SIDE = 512
# A block has as many columns as singular values are wanted, but narrow products are slow.
NARROWEST_BLOCK = 32
MOST_BLOCKS = 6
# Blocks are added until one lowers the error by less than this share of it.
TOLERANCE = 0.01
# How often the first block is multiplied by the product that the matrix is said to be like.
START_ITERATIONS = 3
# Squared norms are right to about this share, so that no error below it can be told from none.
ROUNDING = 1e-10

Rank = Literal["full"] | int | float


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


def approximate(
    matrix: Tensor, limit: int, rank: Rank, module: str, like: Factors | None = None
) -> Approximation:
    """The matrix as `B @ A` of the given rank, and never more than `limit`.

    rank: "full", a number, or the share of the squared Frobenius norm to keep. The best
    approximation if the shorter side is at most EXACT_SIDE; else the best one in a Krylov space,
    whose error is within a hundredth of the best. like: factors of a matrix whose strongest
    directions are probably about the same, which saves work if it is true and costs little if not.
    The module's name keys the random numbers.
    """
    side = min(matrix.shape)
    if rank == "full" and side <= limit:
        return _whole(matrix)
    upright = matrix.shape[0] <= matrix.shape[1]
    wide = matrix if upright else matrix.T
    largest = min(limit, side, rank if isinstance(rank, int) else limit)
    if side <= EXACT_SIDE or 2 * _block_size(largest) > side:
        space, total = Projection((), (wide.T,)), None
    else:
        total = _square_norm(matrix)
        if like is not None and not upright:
            like = Factors(B=like.A.T, A=like.B.T)
        space = krylov_space(wide, largest, total, _start(wide, largest, module, like))
    squares, vectors = space.decomposition()
    found = float(squares.sum())
    total = found if total is None else total
    kept = _choose(squares, total, largest, rank)
    lost = max(0.0, total - found) + float(squares[kept:].sum())
    roots = squares[:kept].sqrt().sqrt()
    short = vectors[:, :kept] * roots
    long = times(space.rows, vectors[:, :kept] * reciprocal(roots)).float()
    short = times(space.basis, short).float() if space.basis else short.float()
    factors = Factors(B=short, A=long.T) if upright else Factors(B=long, A=short.T)
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


@dataclass(frozen=True, slots=True)
class Projection:
    """A matrix M seen in an orthonormal basis Q = [U_1 ... U_k]: the U_j, and the M' U_j.

    Without a basis it is M itself.
    """

    basis: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]

    def decomposition(self) -> tuple[Tensor, Tensor]:
        """Squared singular values of Q' M, largest first, and its left singular vectors."""
        squares, vectors = eigh(gram(*self.rows))
        return squares.flip(0).clamp_min(0.0), vectors.flip(1)


def krylov_space(wide: Tensor, size: int, total: float, start: Tensor) -> Projection:
    """The directions M V, M M' (M V), ... of M = `wide`, from the columns of V = `start`.

    Block Lanczos bidiagonalisation with full reorthogonalisation (Golub, Luk and Overton 1981;
    Musco and Musco 2015, arXiv 1504.05477, for how close it comes). A block is added as long as the
    last one lowered the error of the best approximation of rank `size` by more than TOLERANCE of
    it: errors fall geometrically, so what is left to gain is less than what the last block gained.
    total: the squared norm of M.
    """
    space, before = Projection((), ()), math.inf
    directions = start
    while True:
        block = _orthonormal_columns(_apart(wide @ directions, space.basis))
        space = Projection((*space.basis, block), (*space.rows, wide.T @ block))
        squares, _ = space.decomposition()
        lost = total - float(squares[:size].sum())
        found = sum(part.shape[1] for part in space.basis)
        full = found + block.shape[1] > wide.shape[0] or len(space.basis) == MOST_BLOCKS
        if full or lost <= ROUNDING * total or before <= lost * (1.0 + TOLERANCE) ** 2:
            return space
        before, directions = lost, _orthonormal_columns(space.rows[-1])


def _start(wide: Tensor, size: int, module: str, like: Factors | None) -> Tensor:
    """Columns to begin with: random, then turned towards the strongest directions of `like`."""
    drawn = signs(module, wide.shape[1], _block_size(size)).to(wide.device)
    if like is None:
        return _orthonormal_columns(drawn)
    turned = drawn
    for _ in range(START_ITERATIONS):
        turned = like.A.T @ (like.B.T @ (like.B @ (like.A @ turned)))
        turned = _orthonormal_columns(turned)
    return torch.cat([turned, drawn[:, turned.shape[1] :]], dim=1)


def krylov_columns(size: int, side: int) -> int:
    """The most columns that the space for `size` directions of a matrix of this side gets."""
    return min(MOST_BLOCKS * _block_size(size), side)


def _block_size(size: int) -> int:
    return max(size, NARROWEST_BLOCK)


def _apart(columns: Tensor, basis: tuple[Tensor, ...]) -> Tensor:
    """The columns without what lies in the space of the basis; twice, because once rounds."""
    for _ in range(2):
        for block in basis:
            columns = columns.addmm(block, block.T @ columns, alpha=-1.0)
    return columns


def _orthonormal_columns(tall: Tensor) -> Tensor:
    basis = orthonormal(tall)
    return tall @ basis.mix.float()
