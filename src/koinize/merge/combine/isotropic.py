"""Make all singular values of the sum equal (Iso-C)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from koinize.merge.combine.sum import combine as weighted_sum
from koinize.merge.decompose import svd
from koinize.merge.linalg import numerical_rank
from koinize.merge.stack import Stack


def combine(stack: Stack, weights: Sequence[float]) -> Tensor:
    """U V' times the mean singular value of sum w_i X_i. Marczak et al. 2025, arXiv 2502.04959.

    In a space that holds just the directions in which the updates live, so that the mean is over
    those and not over the base's whole dimension.
    """
    U, S, Vt = svd(weighted_sum(stack, weights))
    rank = numerical_rank(S)
    merged: Tensor = (U[:, :rank] * S[:rank].mean()) @ Vt[:rank]
    return merged
