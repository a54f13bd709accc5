"""Exact selection: the magnitude above which a given number of entries lie."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from koinize.merge.stack import Stack

# Every STRIDE-th entry is sampled to guess a bracket; a prime, so that it walks over all columns.
STRIDE = 251
SMALL = PIECE = 1 << 16


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
    return _largest(magnitudes, count)


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
    low, high = _bracket(sample, count / entries)
    above, inside = 0, []
    for tile in tiles:
        larger, between = _sift(tile, low, high)
        above += larger
        inside.append(between)
    candidates = torch.cat(inside)
    if above < count <= above + len(candidates):
        return _largest(candidates, count - above)
    return None


def _sift(magnitudes: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """How many lie above `high`, and those in [low, high]; in pieces that stay in the cache."""
    if magnitudes.device.type != "cpu":
        larger = magnitudes > high
        return int(larger.sum()), magnitudes[(magnitudes >= low) ^ larger]
    values = magnitudes.numpy()
    above, inside = 0, []
    for start in range(0, len(values), PIECE):
        piece = values[start : start + PIECE]
        beyond = piece > high
        above += int(np.count_nonzero(beyond))
        inside.append(piece[(piece >= low) ^ beyond])
    return above, torch.from_numpy(np.concatenate(inside))


def _largest(values: Tensor, count: int) -> float:
    place = len(values) - count
    if values.device.type != "cpu":
        return float(values.kthvalue(place + 1).values)
    return float(np.partition(values.numpy(), place)[place])


def _bracket(sample: Tensor, share: float) -> tuple[float, float]:
    """Magnitudes that hold the threshold between them, six standard errors apart."""
    size = len(sample)
    spread = 6.0 * math.sqrt(size * share * (1.0 - share)) + 1.0
    ordered = np.sort(sample.cpu().numpy())[::-1]
    first = max(0, int(size * share - spread))
    last = min(size - 1, int(size * share + spread))
    return float(ordered[last]), float(ordered[first])
