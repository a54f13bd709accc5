"""Trimming over a whole adapter: one exact threshold for all its modules, found in two passes.

Positive float32 numbers sort like their bits. The first pass counts the upper 16 bits of every
magnitude, which tells the group that the threshold is in; the second counts the lower 16 bits of
that group. Nothing but counts is kept between modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from koinize.merge.select import kept_count
from koinize.merge.stack import Stack

HALF = 1 << 16

Counts = Mapping[str, Tensor]  # language -> HALF counts, int64


def upper_counts(stacks: Sequence[Stack], languages: Iterable[str]) -> dict[str, Tensor]:
    """How many magnitudes of a module fall into each group, by language."""
    return {one: _count(stacks, one, lambda bits: bits >> 16) for one in languages}


def lower_counts(
    stacks: Sequence[Stack], languages: Iterable[str], groups: Mapping[str, int]
) -> dict[str, Tensor]:
    """Inside each language's group, how many magnitudes have each value of the lower bits."""

    def lower(bits: Tensor, group: int) -> Tensor:
        return bits[(bits >> 16) == group] & (HALF - 1)

    return {one: _count(stacks, one, partial(lower, group=groups[one])) for one in languages}


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


def _count(stacks: Sequence[Stack], language: str, values: Callable[[Tensor], Tensor]) -> Tensor:
    """How often each of the values of a language's magnitudes' bits occurs, tile by tile."""
    total: Tensor | None = None
    for stack in stacks:
        for block in stack.blocks(stack.languages.index(language)):
            bits = block.float().abs().reshape(-1).view(torch.int32)
            counts = torch.bincount(values(bits), minlength=HALF)
            total = counts if total is None else total.add_(counts)
    return torch.zeros(HALF, dtype=torch.int64) if total is None else total


def _descend(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The highest bin at which `wanted` entries are reached from above, and how many of it."""
    above = counts.flip(0).cumsum(0)
    index = int((above < wanted).sum())
    before = int(above[index - 1]) if index else 0
    return len(counts) - 1 - index, wanted - before
