"""Drop entries at random and rescale the rest (DARE)."""

from __future__ import annotations

import torch
from torch import Tensor

from koinize.merge.masks import keep
from koinize.merge.stack import Stack

NEGLIGIBLE_NORM = 1e-7  # mergekit leaves a tensor with less than this as it is


def sparsify(stack: Stack, *, density: float, seed: int, rescale: str) -> Stack:
    """Each X_i with every entry kept with probability `density`, then rescaled.

    "inverse" divides by the density, so that the expectation is X_i; "l1" restores the L1 norm. The
    mask of an entry depends on (seed, language, module, index) alone. At density 1 nothing is
    drawn. Yu et al. 2024, arXiv 2311.03099.
    """
    if density >= 1.0:
        return stack

    def thinned(index: int, rows: slice, block: Tensor) -> Tensor:
        start = rows.start * stack.shape[1]
        language = stack.languages[index]
        block.mul_(keep(seed, language, stack.module, start, block.shape, density, block.device))
        return block.div_(density) if rescale == "inverse" else block

    thin = stack.each(thinned)
    return thin if rescale == "inverse" else restored(stack, thin)


def restored(before: Stack, after: Stack) -> Stack:
    """`after`, each language scaled to the L1 norm that it had in `before`."""
    factors = []
    for index in range(len(before)):
        norms = [
            float(torch.linalg.vector_norm(stack.matrix(index), 1, dtype=torch.float64))
            for stack in (before, after)
        ]
        factors.append(1.0 if min(norms) < NEGLIGIBLE_NORM else norms[0] / norms[1])
    return after.each(lambda index, _rows, block: block.mul_(factors[index]))
