"""Drop entries at random and rescale the rest (DARE)."""

from __future__ import annotations

from torch import Tensor

from koinize.merge.masks import keep
from koinize.merge.stack import Stack


def sparsify(stack: Stack, *, density: float, seed: int) -> Stack:
    """Each X_i with every entry kept with probability `density`, then divided by it.

    The mask of an entry depends on (seed, language, module, index) alone. At density 1 nothing is
    drawn. Yu et al. 2024, arXiv 2311.03099.
    """
    if density >= 1.0:
        return stack

    def thinned(index: int, rows: slice, block: Tensor) -> Tensor:
        start = rows.start * stack.shape[1]
        mask = keep(seed, stack.languages[index], stack.module, start, block.shape, density)
        return block.mul_(mask).div_(density)

    return stack.each(thinned)
