"""The factors A and B, each merged alone: what PEFT's `linear`, `ties` and `dare_*` mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from koinize.adapter import Factors
from koinize.errors import InputError
from koinize.merge.slots import NO_TRUNK, OTHER_SPACES
from koinize.merge.spaces._aligned import Aligned, Part


def space(factors: Sequence[Factors], trunk: Factors | None = None) -> Aligned:
    """Two parts, A_i (rank x inputs) and B_i (outputs x rank), without their scales.

    A weight w and a scale s become sqrt(|w s|) on each factor, with the sign on A. Not invariant:
    another basis of the same update gives another merge. Raises InputError if ranks differ, and
    for a trunk: the difference of two updates is no difference of their factors.
    """
    if trunk is not None:
        raise InputError(NO_TRUNK, remedy=OTHER_SPACES)
    present = [update for update in factors if update.rank]
    ranks = sorted({update.rank for update in present})
    if len(ranks) > 1:
        raise InputError(
            f"space 'factor' adds up factors, and their ranks differ: {ranks}",
            remedy=OTHER_SPACES,
        )
    scales = [update.scale for update in factors]

    def weights_a(weights: Sequence[float]) -> list[float]:
        return [math.copysign(_root(w * s), w * s) for w, s in zip(weights, scales, strict=True)]

    def weights_b(weights: Sequence[float]) -> list[float]:
        return [_root(w * s) for w, s in zip(weights, scales, strict=True)]

    rank = ranks[0]
    outputs, inputs = present[0].B.shape[0], present[0].A.shape[1]

    def block_a(index: int, rows: slice) -> Tensor:
        A = factors[index].A
        return A[rows].clone() if factors[index].rank else A.new_zeros(_count(rows), inputs)

    def block_b(index: int, rows: slice) -> Tensor:
        B = factors[index].B
        if not factors[index].rank:
            return B.new_zeros(_count(rows), rank)
        return B[rows] / scales[index]

    return Aligned(
        parts=(
            Part((rank, inputs), block_a, weights=weights_a, name="lora_A"),
            Part((outputs, rank), block_b, weights=weights_b, name="lora_B"),
        ),
        lift=lambda merged: merged,
    )


def _root(number: float) -> float:
    return math.sqrt(abs(number))


def _count(rows: slice) -> int:
    count: int = rows.stop - rows.start
    return count
