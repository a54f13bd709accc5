"""Trimming over a whole adapter: one exact threshold for all its modules, found in two passes.

Positive float32 numbers sort like their bits. The first pass counts the upper 16 bits of every
magnitude, which tells the group that the threshold is in; the second counts the lower 16 bits of
that group. Nothing but counts is kept between modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from koinize.merge.select import kept_count

HALF = 1 << 16

Counts = Mapping[str, Tensor]  # language -> HALF counts, int64


def upper_counts(entries: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """How many magnitudes of a module fall into each group, by language."""
    return {
        language: _count(torch.cat([_bits(matrix) for matrix in matrices]) >> 16)
        for language, matrices in entries.items()
    }


def lower_counts(
    entries: Mapping[str, list[Tensor]], groups: Mapping[str, int]
) -> dict[str, Tensor]:
    """Inside each language's group, how many magnitudes have each value of the lower bits."""
    counts = {}
    for language, matrices in entries.items():
        bits = torch.cat([_bits(matrix) for matrix in matrices])
        counts[language] = _count(bits[(bits >> 16) == groups[language]] & (HALF - 1))
    return counts


def added(all_counts: Iterable[Counts]) -> dict[str, Tensor]:
    """The counts of all modules together."""
    total: dict[str, Tensor] = {}
    for counts in all_counts:
        for language, count in counts.items():
            total[language] = total[language] + count if language in total else count
    return total


def wanted_groups(counts: Counts, density: float, extra: int) -> dict[str, tuple[int, int]]:
    """By language, the group of the threshold, and how many entries to keep from it."""
    return {
        language: _descend(count, kept_count(density, int(count.sum())) + extra)
        for language, count in counts.items()
    }


def thresholds(groups: Mapping[str, tuple[int, int]], counts: Counts) -> dict[str, float]:
    """The magnitude of the last entry that is kept, by language."""
    found = {}
    for language, (group, remaining) in groups.items():
        if remaining <= 0:
            found[language] = math.inf
            continue
        low, _ = _descend(counts[language], remaining)
        bits = torch.tensor([group << 16 | low], dtype=torch.int32, device="cpu")
        found[language] = float(bits.view(torch.float32))
    return found


def _bits(matrix: Tensor) -> Tensor:
    return matrix.float().abs().reshape(-1).view(torch.int32)


def _count(values: Tensor) -> Tensor:
    return torch.bincount(values, minlength=HALF)


def _descend(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The highest bin at which `wanted` entries are reached from above, and how many of it."""
    above = counts.flip(0).cumsum(0)
    index = int((above < wanted).sum())
    before = int(above[index - 1]) if index else 0
    return len(counts) - 1 - index, wanted - before
