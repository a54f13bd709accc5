"""Keep each update's strongest singular directions and decorrelate them (TSV-Merge)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.merge.decompose import svd
from koinize.merge.linalg import numerical_rank, reciprocal
from koinize.merge.select import kept_count
from koinize.merge.stack import Stack


def combine(stack: Stack, weights: Sequence[float], *, density: float) -> Tensor:
    """U' S V'' of the concatenated directions, U' and V' being the nearest orthonormal ones.

    From each w_i X_i the int(density k) strongest of its k singular directions are kept, at least
    one; the paper's choice for N adapters is density 1 / N. Gargiulo et al. 2025, arXiv 2412.00081.
    """
    left, values, right = [], [], []
    for index, weight in enumerate(weights):
        U, S, Vt = svd(stack.matrix(index))
        if not weight or not S[0]:
            continue  # it has no directions, and any that stood for them would change the others'
        kept = max(1, kept_count(density, numerical_rank(S)))
        left.append(U[:, :kept])
        values.append(weight * S[:kept])
        right.append(Vt[:kept].T)
    if not values:
        return torch.zeros_like(stack.matrix(0))
    U, V = _decorrelated(torch.cat(left, dim=1)), _decorrelated(torch.cat(right, dim=1))
    merged: Tensor = (U * torch.cat(values)) @ V.T
    return merged


def _decorrelated(directions: Tensor) -> Tensor:
    """The matrix with orthonormal columns that is nearest (Procrustes): P Q' of P s Q'."""
    P, s, Qt = svd(directions)
    # Directions that cancel entirely have no nearest matrix, and are left out.
    nearest: Tensor = (P * (s * reciprocal(s))) @ Qt
    return nearest
