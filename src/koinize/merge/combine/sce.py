"""Select, calculate, erase (SCE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.merge.select import kept_count, magnitude_threshold
from koinize.merge.stack import Stack

SMALLEST_DIVISOR = 1e-6


def combine(stack: Stack, weights: Sequence[float], *, density: float) -> Tensor:
    """Select the entries that vary most between adapters, weight by energy, erase minority signs.

    The int(density m) entries of largest variance stay, of the m whose variance is not 0. Each
    adapter then counts with its share of the remaining squares, times w_i; of those, the ones whose
    sign is that of the sum are averaged, by the magnitudes of these weights. Wan et al. 2024, arXiv
    2408.07990.
    """
    lowest = _lowest_variance(stack, density)
    energies = _energies(stack, lowest)
    whole = sum(energies)
    shares = [
        weight * (energy / whole if whole > 0.0 else 1.0)
        for weight, energy in zip(weights, energies, strict=True)
    ]

    def erase(blocks: list[Tensor]) -> Tensor:
        blocks = _select(blocks, lowest)
        elected = torch.stack(blocks).sum(0).sign_().add_(0.5).sign_()
        result, divisor = torch.zeros_like(elected), torch.zeros_like(elected)
        for block, share in zip(blocks, shares, strict=True):
            agrees = (block.sign() == elected).to(block.dtype)
            result.add_(block.mul_(agrees), alpha=share)
            divisor.add_(agrees, alpha=abs(share))
        return result.div_(divisor.clamp_min_(SMALLEST_DIVISOR))

    return stack.gather(erase)


def _lowest_variance(stack: Stack, density: float) -> float:
    """The variance above which an entry is selected."""
    if density >= 1.0:
        return 0.0
    variances = stack.gather(_variance)
    return magnitude_threshold(variances, kept_count(density, int(variances.count_nonzero())))


def _variance(blocks: list[Tensor]) -> Tensor:
    return torch.stack(blocks).var(dim=0, unbiased=False)


def _select(blocks: list[Tensor], lowest: float) -> list[Tensor]:
    if lowest <= 0.0:
        return blocks
    kept = _variance(blocks) >= lowest
    return [block.mul_(kept) for block in blocks]


def _energies(stack: Stack, lowest: float) -> list[float]:
    """The sum of squares of every adapter's selected entries."""
    energies = [0.0] * len(stack)
    for rows in stack.rows():
        blocks = [stack.block(index, rows) for index in range(len(stack))]
        for index, block in enumerate(_select(blocks, lowest)):
            energies[index] += float(block.square().sum(dtype=torch.float64))
    return energies
