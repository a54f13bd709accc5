"""Elect a sign per entry and average those that agree with it (the last two steps of TIES)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.merge.stack import Stack


def combine(
    stack: Stack,
    weights: Sequence[float],
    *,
    sign: str = "total",
    normalize: str = "weights",
    vote: str = "weighted",
    zero_sign: str = "plus",
) -> Tensor:
    """The mean, entry by entry, of the w_i X_i whose sign is the elected one.

    The sign is that of the sum of the values ("total") or of their signs ("frequency"), taken of
    w_i X_i (`vote` "weighted") or of X_i ("plain"). The mean divides by the sum of |w_i| of those
    that agree ("weights": a one-hot weight gives back that adapter), by their number ("count"), or
    by 1 ("none"). A sum of exactly zero elects +, or the sign that wins over the whole module
    (`zero_sign` "majority"). Entries that are zero never agree. Yadav et al. 2023, arXiv
    2306.01708.
    """
    voting = list(weights) if vote == "weighted" else [1.0] * len(stack)
    zero = 1.0
    if zero_sign == "majority":
        signs = stack.gather(lambda blocks: _total(blocks, voting, sign).sign_())
        zero = -1.0 if float(signs.sum(dtype=torch.float64)) <= 0.0 else 1.0

    def elect(blocks: list[Tensor]) -> Tensor:
        elected = _total(blocks, voting, sign).sign_().add_(0.5 * zero).sign_()
        return _agreeing(blocks, elected, weights, voting, normalize)

    return stack.gather(elect)


def _total(blocks: list[Tensor], voting: Sequence[float], sign: str) -> Tensor:
    total = torch.zeros_like(blocks[0])
    for block, voice in zip(blocks, voting, strict=True):
        if sign == "total":
            total.add_(block, alpha=voice)
        else:
            total.add_((voice * block).sign_())
    return total


def _agreeing(
    blocks: list[Tensor],
    elected: Tensor,
    weights: Sequence[float],
    voting: Sequence[float],
    normalize: str,
) -> Tensor:
    """sum w_i X_i over those that voted for the elected sign, divided as `normalize` says."""
    result, divisor = torch.zeros_like(elected), torch.zeros_like(elected)
    for block, weight, voice in zip(blocks, weights, voting, strict=True):
        agreeing = block.mul_(elected if voice >= 0.0 else -elected).clamp_min_(0.0)
        result.add_(agreeing, alpha=weight if voice >= 0.0 else -weight)
        if normalize != "none" and voice != 0.0:
            divisor.add_(agreeing.sign_(), alpha=abs(weight) if normalize == "weights" else 1.0)
    result.mul_(elected)
    if normalize == "none":
        return result
    # Where nobody agrees both are zero. (A mask would take longer than all the rest.)
    return result.div_(divisor.clamp_min_(torch.finfo(divisor.dtype).tiny))
