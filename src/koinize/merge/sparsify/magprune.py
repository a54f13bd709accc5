"""Drop small entries more often than large ones (the first step of DELLA)."""

from __future__ import annotations

import torch
from torch import Tensor

from koinize.merge.masks import keep
from koinize.merge.sparsify.drop import restored
from koinize.merge.stack import Stack


def sparsify(stack: Stack, *, density: float, epsilon: float, seed: int, rescale: str) -> Stack:
    """Each X_i with its entries kept with probability density - epsilon ... density + epsilon.

    The probability grows linearly with the rank of the magnitude within its row. "inverse" divides
    each entry by its own probability; "l1" restores the L1 norm. At density 1 nothing is drawn.
    Deep et al. 2024, arXiv 2406.11617.
    """
    if density >= 1.0:
        return stack

    def thinned(index: int, rows: slice, block: Tensor) -> Tensor:
        columns = block.shape[1]
        ranks = block.abs().argsort(dim=1, stable=True).argsort(dim=1)
        share = ranks.to(torch.float64) / max(1, columns - 1)
        probability = (density - epsilon) + 2.0 * epsilon * share
        language, start = stack.languages[index], rows.start * columns
        key = (seed, language, stack.module, start, block.shape)
        block.mul_(keep(*key, probability, block.device))
        return block.div_(probability) if rescale == "inverse" else block

    thin = stack.each(thinned)
    return thin if rescale == "inverse" else restored(stack, thin)
