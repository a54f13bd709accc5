"""Keep the largest entries by magnitude (the first step of TIES)."""

from __future__ import annotations

from torch import Tensor

from koinize.merge.select import kept_count, magnitude_threshold
from koinize.merge.stack import Stack


def sparsify(stack: Stack, *, density: float) -> Stack:
    """Each X_i with only its int(density n) entries of largest magnitude; n = rows x columns.

    Entries that tie with the last one kept are kept too. Yadav et al. 2023, arXiv 2306.01708.
    """
    if density >= 1.0:
        return stack
    count = kept_count(density, stack.shape[0] * stack.shape[1])
    thresholds = [magnitude_threshold(stack.matrix(i), count) for i in range(len(stack))]

    def trimmed(index: int, _rows: slice, block: Tensor) -> Tensor:
        return block.masked_fill_(block.abs() < thresholds[index], 0.0)

    return stack.each(trimmed)
