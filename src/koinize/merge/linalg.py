"""Orthonormal bases of tall factors, from their Gram matrices.

A tall matrix is never decomposed itself. Its Gram matrix in float64 is, which is as accurate for
factors that come in float32 or less, and twice as fast as QR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from koinize.merge import place
from koinize.merge.decompose import cholesky, eigh

# Directions weaker than this share of the strongest are rounding noise of float32 inputs.
NEGLIGIBLE = 1e-6
# A Gram matrix is computed from so many rows at a time: a float64 copy of all of them would be
# fresh memory, which costs as much as a third of the product.
GRAM_ROWS = 768


@dataclass(frozen=True, slots=True)
class Basis:
    """Orthonormal columns `[T_1 ... T_N] @ mix`: T_i (n x m_i) float32, mix (sum m_i x k) float64.

    The T_i are never copied side by side: fresh memory costs more than the product.
    """

    talls: tuple[Tensor, ...]
    mix: Tensor

    def times(self, small: Tensor) -> Tensor:
        """`[T_1 ... T_N] @ mix @ small` in float32, without forming the basis itself."""
        return times(self.talls, self.mix @ small.double())


def times(talls: Sequence[Tensor], small: Tensor) -> Tensor:
    """`[T_1 ... T_N] @ small` in the dtype and the memory order of the T_i."""
    parts = torch.split_with_sizes(
        small.to(talls[0].dtype), [tall.shape[1] for tall in talls], dim=0
    )
    pairs = list(zip(talls, parts, strict=True))
    by_rows = _by_rows(talls[0])
    if not by_rows:
        pairs = [(part.T, tall.T) for tall, part in pairs]
    total = pairs[0][0] @ pairs[0][1]
    for left, right in pairs[1:]:
        total.addmm_(left, right)
    return total if by_rows else total.T


def gram(*talls: Tensor) -> Tensor:
    """`T' @ T` of T = [T_1 ... T_N] in float64; a core computes one of its two equal halves."""
    if not place.on_cpu(talls[0]):
        whole = torch.cat(talls, dim=1).double()
        return whole.T @ whole
    count, widths = talls[0].shape[0], [tall.shape[1] for tall in talls]
    strip = _like(talls[0], min(GRAM_ROWS, count), sum(widths))
    # Memory of torch, whose alignment is always the same; bits of later products may depend on it.
    result = talls[0].new_zeros((sum(widths), sum(widths)), dtype=torch.float64)
    added, product = result.numpy(), np.empty(result.shape)
    for first in range(0, count, GRAM_ROWS):
        strip = strip[: count - first]
        for part, tall in zip(columns(strip, widths), talls, strict=True):
            part.copy_(tall[first : first + GRAM_ROWS])
        rows = strip.numpy()
        with np.errstate(all="ignore"):  # what is not finite is refused where it would be used
            added += np.matmul(rows.T, rows, out=product)  # which numpy knows to be symmetric
    return result


def _like(tall: Tensor, rows: int, columns: int) -> Tensor:
    """An empty float64 matrix in the memory order of `tall`: to turn it around would cost more."""
    if _by_rows(tall):
        return tall.new_empty((rows, columns), dtype=torch.float64)
    return tall.new_empty((columns, rows), dtype=torch.float64).T


def _by_rows(matrix: Tensor) -> bool:
    return matrix.stride(1) == 1


def strong_eigh(symmetric: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Eigenvalues, largest first, and vectors of a Gram matrix, without its rounding noise.

    noise: what rounding alone may have made of a 0, where the matrix itself does not show it.
    """
    values, vectors = eigh(symmetric)
    values, vectors = values.flip(0), vectors.flip(1)
    values = values.where(values > noise, 0.0)
    count = numerical_rank(values.sqrt())
    return values[:count], vectors[:, :count]


def root(symmetric: Tensor) -> Tensor:
    """L (float64) with L L' = the given Gram matrix, which may be singular."""
    lower = cholesky(symmetric)
    if lower is None:
        values, vectors = eigh(symmetric)
        lower = vectors * values.clamp_min(0.0).sqrt()
    return lower


def numerical_rank(singular: Tensor) -> int:
    """How many of the descending singular values stand above rounding noise; at least one."""
    return max(1, int(singular.gt(singular[0] * NEGLIGIBLE).sum()))


def orthonormal(tall: Tensor) -> Basis:
    """The left singular vectors of a tall matrix, strongest first."""
    values, vectors = strong_eigh(gram(tall))
    return Basis((tall,), vectors * reciprocal(values.sqrt()))


def completed(basis: Basis, inner: Tensor, part: slice, root: Tensor) -> Basis:
    """The basis, and after it the directions of `T_part @ root` that it lacks.

    part: some of the columns of the basis' T, of which `inner` is T' T. What is weaker than
    NEGLIGIBLE, as a share of all of `T_part @ root`, is no direction.
    """
    lacking = -(basis.mix @ (basis.mix.T @ inner[:, part]))
    lacking[part].diagonal().add_(1.0)
    lacking = lacking @ root
    squares, vectors = eigh(lacking.T @ inner @ lacking)
    whole = (root.T @ inner[part, part] @ root).trace()
    new = squares > NEGLIGIBLE**2 * whole
    directions = lacking @ (vectors[:, new] * reciprocal(squares[new].sqrt()))
    return Basis(basis.talls, torch.cat([basis.mix, directions], dim=1))


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
