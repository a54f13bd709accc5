"""Keep the largest entries by magnitude (the first step of TIES)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from koinize.merge.select import kept_count, stack_threshold
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
        lowest = [thresholds[language] for language in stack.languages]
    else:
        count = kept_count(density, stack.shape[0] * stack.shape[1]) + extra
        lowest = [stack_threshold(stack, index, count) for index in range(len(stack))]

    def trimmed(index: int, _rows: slice, block: Tensor) -> Tensor:
        # hardshrink keeps what lies beyond its bound: the next number below the threshold. The
        # adapter's thresholds are float32, whatever the space works in.
        kind = np.float32 if thresholds is not None or block.dtype == torch.float32 else np.float64
        bound = float(np.nextafter(kind(lowest[index]), kind(0.0)))
        return torch.hardshrink(block, bound, out=block)

    return stack.each(trimmed)
