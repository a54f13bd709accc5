"""Low-rank approximations: exact for small matrices, from a block Krylov space for large ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from koinize.adapter import Factors
from koinize.merge.decompose import eigh, eigvalsh
from koinize.merge.linalg import GRAM_ROWS, gram, numerical_rank, orthonormal, reciprocal, times
from koinize.merge.masks import signs

# A matrix is decomposed exactly if its shorter side is at most this, or so many blocks: a Krylov
# space that comes close enough has two to six, and takes longer than everything at once
# (benchmarks/approximation.py).
EXACT_SIDE, EXACT_BLOCKS = 512, 8
# A block has as many columns as singular values are wanted, but narrow products are slow.
NARROWEST_BLOCK = 32
MOST_BLOCKS = 6
# Blocks are added until one lowers the error by less than this share of it.
TOLERANCE = 0.01
# How often the first block is multiplied by the product that the matrix is said to be like.
START_ITERATIONS = 3
# How much of the first block is left to chance, lest a hint hide a direction that it knows not of.
CHANCE = 0.1
# What a float32 product leaves of a direction that is known already, relative to the strongest one.
NOISE = 1e-5
# A remainder below this share of the squared norm is computed, because the difference of two
# numbers that are nearly equal says nothing; and below this other share it is rounding.
SMALL_REST, NO_REST = 1e-4, 1e-13
# Where more than this share of the squared norm is lost, float32 tells the strongest directions
# from the others well enough: its rounding, 1e-7 of the norm, is 1e-5 of what is lost.
LARGE_LOSS = 0.01

# Float64 matrices of the size of a Gram matrix that are alive while it is decomposed.
SQUARES = 7

NORM_ELEMENTS = 1 << 16
TINY = float(torch.finfo(torch.float32).tiny)

Rank = Literal["full"] | int | float


@dataclass(frozen=True, slots=True)
class Approximation:
    """Factors of a low-rank approximation, and what it lost: squared Frobenius norms.

    still: whether it is a trunk to which a merge added nothing.
    """

    factors: Factors
    lost: float
    total: float
    still: bool = False

    @property
    def error(self) -> float:
        """Relative Frobenius error; 0 if nothing was cut."""
        return math.sqrt(self.lost / self.total) if self.lost > 0.0 else 0.0


def approximate(
    matrix: Tensor, limit: int, rank: Rank, module: str, like: Factors | None = None
) -> Approximation:
    """The matrix as `B @ A` of the given rank.

    rank: "full", which is `limit` here, a number, or the share of the squared Frobenius norm to
    keep; each of them as far as the matrix has directions above the rounding of float32. The best
    approximation if the shorter side is short beside the rank (`_is_small`); else the best one in
    a Krylov space, whose error is within a hundredth of the best. like: factors of a matrix whose
    strongest directions are probably about the same, which saves work if it is true and costs
    little if not. The module's name keys the random numbers.
    """
    side = min(matrix.shape)
    if rank == "full" and side <= limit:
        return _whole(matrix)
    upright = matrix.shape[0] <= matrix.shape[1]
    wide = matrix if upright else matrix.T
    if like is not None and not upright:
        like = Factors(B=like.A.T, A=like.B.T)
    for size in _sizes(limit, side, rank):
        if _is_small(size, side):
            space = Projection((), (wide.T,), gram(wide.T), 0.0)
        else:
            space = krylov_space(wide, size, _start(wide, size, module, like))
        total, lost, squares, vectors = _strongest(space, size, rank)
        if not isinstance(rank, float) or total - lost >= rank * total:
            break
    kept = max(min(limit, len(squares)), numerical_rank(squares.sqrt()))
    lost += float(squares[kept:].sum())
    squares, vectors = squares[:kept], vectors[:, :kept]
    roots = squares.sqrt().sqrt()
    short = vectors * roots
    long = times(space.rows, vectors * reciprocal(roots)).float()
    short = times(space.basis, short).float() if space.basis else short.float()
    factors = Factors(B=short, A=long.T) if upright else Factors(B=long, A=short.T)
    return Approximation(factors, lost, total)


def _sizes(limit: int, side: int, rank: Rank) -> Iterator[int]:
    """How many directions to look for: as many as asked for, or more and more for an energy."""
    if not isinstance(rank, float):
        yield min(side, limit if rank == "full" else rank)
        return
    size = limit
    while not _is_small(size, side):
        yield size
        size *= 2
    yield side


def _is_small(size: int, side: int) -> bool:
    """Whether a matrix is decomposed exactly to get so many of its directions."""
    return side <= max(EXACT_SIDE, EXACT_BLOCKS * _block_size(size))


def _strongest(space: Projection, largest: int, rank: Rank) -> tuple[float, float, Tensor, Tensor]:
    """(squared norm, of it lost, squared singular values kept, left singular vectors kept)."""
    inner = space.inner
    norm = inner.trace()
    total = space.rest + float(norm)
    # A share of the energy is counted in float64, where equal directions are equal.
    if largest < len(inner) and norm > 0.0 and not isinstance(rank, float):
        squares, vectors = _descending((inner / norm).float())  # in three fifths of the time
        squares = squares[:largest].double() * norm
        lost = total - float(squares.sum())
        if lost > LARGE_LOSS * total:
            return total, lost, squares, vectors[:, :largest]
    squares, vectors = _descending(inner)
    kept = _choose(squares, total, largest, rank)
    return total, space.rest + float(squares[kept:].sum()), squares[:kept], vectors[:, :kept]


def _descending(inner: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of a Gram matrix, largest first and not negative, and its eigenvectors."""
    squares, vectors = eigh(inner)
    return squares.flip(0).clamp_min(0.0), vectors.flip(1)


def _whole(matrix: Tensor) -> Approximation:
    """The matrix times an identity on its shorter side."""
    rows, columns = matrix.shape
    eye = torch.eye(min(rows, columns), device=matrix.device)
    matrix = matrix.float()
    factors = Factors(B=eye, A=matrix) if rows <= columns else Factors(B=matrix, A=eye)
    return Approximation(factors, 0.0, square_norm(matrix))


def square_norm(matrix: Tensor) -> float:
    """The squared Frobenius norm in float64, row by row in memory order, without a copy of all."""
    rows = matrix if matrix.stride(1) == 1 else matrix.T
    pieces = torch.split(rows, max(1, NORM_ELEMENTS // max(1, rows.shape[1])))
    return float(sum(piece.double().square_().sum() for piece in pieces))


def _choose(squares: Tensor, total: float, largest: int, rank: Rank) -> int:
    """How many of the descending squared singular values to keep."""
    if not isinstance(rank, float):
        return largest
    reached = squares[:largest].cumsum(0) >= rank * total
    return int(reached.int().argmax()) + 1 if bool(reached.any()) else largest


@dataclass(frozen=True, slots=True)
class Projection:
    """A matrix M seen in an orthonormal basis Q = [U_1 ... U_k]: the U_j, and the M' U_j.

    Without a basis it is M itself. inner: the Gram matrix Q' M M' Q, float64. rest: the squared
    norm of what lies outside, M - Q Q' M.
    """

    basis: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    inner: Tensor
    rest: float


class Rest:
    """M - Q Q' M, which is M itself until so little is left that it has to be computed."""

    def __init__(self, wide: Tensor) -> None:
        self._matrix, self._norm = wide, square_norm(wide)
        self._known = 0.0  # the squared norm of the blocks that are still part of the matrix
        self._blocks: list[tuple[Tensor, Tensor]] = []

    def times(self, directions: Tensor) -> Tensor:
        """M times these columns, or less by what lies in the basis."""
        return self._matrix @ directions

    def take(self, block: Tensor) -> Tensor:
        """`M' U` of a new block U of the basis."""
        row = self._matrix.T @ block
        self._blocks.append((block, row))
        self._known += square_norm(row)
        return row

    def square_norm(self) -> float:
        """The squared norm of what is left, to about float32's rounding of M."""
        left = self._norm - self._known
        if left >= SMALL_REST * self._norm:
            return left
        for block, row in self._blocks:
            self._matrix = torch.addmm(self._matrix, block, row.T, alpha=-1.0)
        self._norm, self._known, self._blocks = square_norm(self._matrix), 0.0, []
        return self._norm


def krylov_space(wide: Tensor, size: int, start: Tensor) -> Projection:
    """The directions M V, M M' (M V), ... of M = `wide`, from the columns of V = `start`.

    Block Lanczos bidiagonalisation with full reorthogonalisation (Golub, Luk and Overton 1981;
    Musco and Musco 2015, arXiv 1504.05477, for how close it comes). A block is added as long as the
    last one lowered the error of the best approximation of rank `size` by more than TOLERANCE of
    it: errors fall geometrically, so what is left to gain is less than what the last block gained.
    """
    rest, directions = Rest(wide), start
    space = Projection((), (), wide.new_zeros((0, 0), dtype=torch.float64), 0.0)
    total, before = rest.square_norm(), math.inf
    strongest = 0.0
    while True:
        block, strength = _new_directions(rest.times(directions), space.basis, strongest)
        strongest = max(strongest, strength)
        if not block.shape[1]:
            return space
        basis, rows = (*space.basis, block), (*space.rows, rest.take(block))
        space = Projection(basis, rows, gram(*rows), rest.square_norm())
        weakest = max(0, len(space.inner) - size)
        lost = space.rest + float(eigvalsh(space.inner)[:weakest].clamp_min(0.0).sum())
        found = sum(part.shape[1] for part in basis)
        full = found + block.shape[1] > wide.shape[0] or len(basis) == MOST_BLOCKS
        if full or lost <= NO_REST * total or before <= lost * (1.0 + TOLERANCE) ** 2:
            return space
        before, directions = lost, _orthonormal_columns(rows[-1])


def _start(wide: Tensor, size: int, module: str, like: Factors | None) -> Tensor:
    """Columns to begin with: random, then turned towards the strongest directions of `like`."""
    drawn = signs(module, wide.shape[1], _block_size(size)).to(wide.device)
    if like is None:
        return _orthonormal_columns(drawn)
    B, A = (factor / factor.abs().max().clamp_min(TINY) for factor in (like.B, like.A))
    turned = drawn
    for _ in range(START_ITERATIONS):
        turned = _orthonormal_columns(A.T @ (B.T @ (B @ (A @ turned))))
    drawn /= math.sqrt(len(drawn))
    drawn[:, : turned.shape[1]] *= CHANCE
    drawn[:, : turned.shape[1]] += turned
    return _orthonormal_columns(drawn)


def working_bytes(size: int, rows: int, columns: int) -> int:
    """What is held at once, beside the matrix, to get so many directions of one of this shape."""
    side = min(rows, columns)
    if _is_small(size, side):
        return 8 * (SQUARES * side**2 + GRAM_ROWS * side)
    found = min(MOST_BLOCKS * _block_size(size), side)
    return 4 * (rows + columns) * found + 8 * (SQUARES * found**2 + GRAM_ROWS * found)


def _block_size(size: int) -> int:
    return max(size, NARROWEST_BLOCK)


def _new_directions(
    columns: Tensor, basis: tuple[Tensor, ...], strongest: float
) -> tuple[Tensor, float]:
    """Orthonormal columns that the basis lacks, without noise; and the strength of the first.

    In float64, and twice, so that what is left of a known direction is noise and seen as such: made
    a unit vector it would be counted again.
    """
    columns = columns.double()
    for _ in range(2):
        for block in basis:
            columns = columns - block.double() @ (block.double().T @ columns)
    squares, vectors = _descending(gram(columns))
    strengths = squares.sqrt()
    strength = float(strengths[0])
    new = strengths > NOISE * max(strongest, strength)
    if not basis:
        new[0] = True  # of a matrix of zeros, any direction: rank 0 is no adapter
    return (columns @ vectors[:, new] * reciprocal(strengths[new])).float(), strength


def _orthonormal_columns(tall: Tensor) -> Tensor:
    basis = orthonormal(tall)
    return tall @ basis.mix.float()
