"""Exact selection: the magnitude above which a given number of entries lie."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from koinize.merge import place
from koinize.merge.stack import Stack

# Every STRIDE-th entry is sampled to guess a bracket; a prime, so that it walks over all columns.
STRIDE = 61
STANDARD_ERRORS = 6.0  # of the sample, between the guess and each end of the bracket
SMALL = 1 << 16
PIECE = 1 << 17  # entries that are compared at a time: they stay in the cache


def kept_count(density: float, entries: int) -> int:
    """int(density n), the number of entries that trimming keeps (as in TIES and PEFT)."""
    return int(density * entries)


def magnitude_threshold(matrix: Tensor, count: int) -> float:
    """The `count`-th largest magnitude: `|x| >= threshold` keeps `count` entries and ties with it.

    The matrix is used up. Infinity for a count of 0. Exact: a strided sample brackets the
    threshold, and only the few entries inside the bracket are sorted; a bracket that misses costs
    time, never exactness.
    """
    entries = matrix.numel()
    if count <= 0:
        return math.inf
    if count >= entries:
        return 0.0
    magnitudes = matrix.abs_().reshape(-1)
    if entries > SMALL:
        found = _sifted([magnitudes], magnitudes[::STRIDE], count, entries)
        if found is not None:
            return found
    return largest(magnitudes, count)


def stack_threshold(stack: Stack, index: int, count: int) -> float:
    """`magnitude_threshold` of X_i; tile by tile, never whole, if its space gives a sample."""
    entries = stack.shape[0] * stack.shape[1]
    if stack.sample is not None and entries > SMALL and 0 < count < entries:
        tiles = (tile.abs_().reshape(-1) for tile in stack.blocks(index))
        found = _sifted(tiles, stack.sample(index).abs(), count, entries)
        if found is not None:
            return found
    return magnitude_threshold(stack.matrix(index), count)


def _sifted(tiles: Iterable[Tensor], sample: Tensor, count: int, entries: int) -> float | None:
    """The `count`-th largest of the magnitudes in all tiles, or None if the sample misled."""
    low, high = bracket(sample, count / entries)
    above, inside = 0, []
    for tile in tiles:
        larger, between = _sift(tile, low, high)
        above += larger
        inside.append(between)
    candidates = torch.cat(inside)
    if above < count <= above + len(candidates):
        return largest(candidates, count - above)
    return None


def _sift(magnitudes: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """How many lie above `high`, and those in [low, high]; in pieces that stay in the cache."""
    if not place.on_cpu(magnitudes):
        larger = magnitudes > high
        return int(larger.sum()), magnitudes[(magnitudes >= low) ^ larger]
    values = magnitudes.numpy()
    above, inside = 0, []
    for start in range(0, len(values), PIECE):
        piece = values[start : start + PIECE]
        beyond = piece > high
        above += int(np.count_nonzero(beyond))
        inside.append(piece[np.flatnonzero((piece >= low) ^ beyond)])  # faster than a mask
    return above, torch.from_numpy(np.concatenate(inside))


def largest(values: Tensor, count: int) -> float:
    """The `count`-th largest of the values."""
    index = len(values) - count
    if not place.on_cpu(values):
        return float(values.kthvalue(index + 1).values)
    return float(np.partition(values.numpy(), index)[index])


def bracket(sample: Tensor, share: float) -> tuple[float, float]:
    """Magnitudes with the threshold in between, as far apart as the sample is unsure of it.

    sample: magnitudes, of which the threshold has about this share above it.
    """
    size = len(sample)
    spread = STANDARD_ERRORS * math.sqrt(size * share * (1.0 - share)) + 1.0
    low = max(0, size - 1 - int(size * share + spread))
    high = min(size - 1, size - 1 - int(size * share - spread))
    ordered = np.partition(sample.cpu().numpy(), sorted({low, high}))
    return float(ordered[low]), float(ordered[high])
