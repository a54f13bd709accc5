"""Remove the largest outliers and the smallest entries (Model Breadcrumbs)."""

from __future__ import annotations

from torch import Tensor

from koinize.merge.select import kept_count, stack_threshold
from koinize.merge.stack import Stack


def sparsify(stack: Stack, *, density: float, outliers: float) -> Stack:
    """Each X_i with int(density n) entries: those after the int(outliers n) largest.

    Where fewer than density n entries would remain, fewer outliers are removed. At density 1
    nothing is. Davari and Belilovsky 2023, arXiv 2312.06795.
    """
    if density >= 1.0:
        return stack
    entries = stack.shape[0] * stack.shape[1]
    kept = kept_count(density, entries)
    removed = min(kept_count(outliers, entries), entries - kept)
    bounds = []
    for index in range(len(stack)):
        low = stack_threshold(stack, index, removed + kept)
        bounds.append((low, stack_threshold(stack, index, removed)))

    def cleaned(index: int, _rows: slice, block: Tensor) -> Tensor:
        low, high = bounds[index]
        magnitudes = block.abs()
        return block.masked_fill_((magnitudes < low) | (magnitudes >= high), 0.0)

    return stack.each(cleaned)
