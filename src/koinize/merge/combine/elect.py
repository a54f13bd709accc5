"""Elect a sign per entry and average those that agree with it (the last two steps of TIES)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.merge.stack import Stack


def combine(stack: Stack, weights: Sequence[float]) -> Tensor:
    """The weighted mean, entry by entry, of the w_i X_i whose sign is that of sum w_i X_i.

    The mean divides by the sum of |w_i| of those that agree, so a one-hot weight gives back that
    adapter. A sum of exactly zero elects +. Entries that are zero never agree and never count.
    Yadav et al. 2023, arXiv 2306.01708.
    """
    return stack.gather(lambda blocks: _elect(blocks, weights))


def _elect(blocks: list[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(blocks[0])
    for block, weight in zip(blocks, weights, strict=True):
        if weight != 1.0:
            block.mul_(weight)
        total.add_(block)
    sign = total.sign_().add_(0.5).sign_()  # -1, 0, 1 become -1, 1, 1
    result, divisor = torch.zeros_like(total), torch.zeros_like(total)
    for block, weight in zip(blocks, weights, strict=True):
        agreeing = block.mul_(sign).clamp_min_(0.0)
        result.add_(agreeing)
        divisor.add_(agreeing.sign_(), alpha=abs(weight))
    # Where nobody agrees both are zero.
    return result.mul_(sign).div_(divisor.masked_fill_(divisor == 0.0, 1.0))
