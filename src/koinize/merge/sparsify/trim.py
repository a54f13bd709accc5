"""Keep the largest entries by magnitude (the first step of TIES)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from koinize.merge.select import kept_count
from koinize.merge.sparsify._trimmed import Trimmed, shrink
from koinize.merge.stack import Stack


def sparsify(
    stack: Stack,
    *,
    density: float,
    extra: int = 0,
    thresholds: Mapping[str, float] | None = None,
) -> Stack:
    """Each X_i with only its int(density n) + extra entries of largest magnitude.

    n is rows x columns; entries that tie with the last one kept are kept too. `thresholds`, by
    language, stand in for the module's own when the scope is the whole adapter. Yadav et al. 2023,
    arXiv 2306.01708.
    """
    if density >= 1.0:
        return stack
    if thresholds is not None:
        return stack.each(lambda i, _rows, block: shrink(block, thresholds[stack.languages[i]]))
    trimmed = Trimmed(stack, kept_count(density, stack.shape[0] * stack.shape[1]) + extra)
    return replace(stack.each(trimmed.cut), gathered=trimmed.gather)
