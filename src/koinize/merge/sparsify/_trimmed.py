"""Trimming in one pass: what is clearly kept or clearly cut is combined at once, the rest later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koinize.merge import place
from koinize.merge.select import (
    PIECE,
    SMALL,
    STANDARD_ERRORS,
    STRIDE,
    bracket,
    largest,
    stack_threshold,
)
from koinize.merge.stack import Combine, Stack

SMALLEST = float(np.nextafter(np.float32(0.0), np.float32(1.0)))


class Trimmed:
    """Each X_i of a stack with its `count` entries of largest magnitude, and those that tie."""

    def __init__(self, stack: Stack, count: int) -> None:
        self._stack, self._count = stack, count

    @cached_property
    def thresholds(self) -> list[float]:
        """The smallest magnitude that is kept, by language; it takes a pass over all entries."""
        return [stack_threshold(self._stack, i, self._count) for i in range(len(self._stack))]

    def cut(self, index: int, _rows: slice, block: Tensor) -> Tensor:
        """The block of X_i, trimmed in place."""
        return shrink(block, self.thresholds[index])

    def gather(self, combine: Combine) -> Tensor:
        """`Stack.gather` of what is left after trimming, with each X_i computed once if possible.

        A sample brackets the threshold of each X_i. An entry of which some language's magnitude
        lies inside its bracket waits, with its N values, until the pass is over and the exact
        thresholds are known. If a sample misled, or too many entries are nearly equal in magnitude,
        everything is done again in two passes. So is it
        on a GPU, where to compute an entry costs less than to set it aside.
        """
        gathered = self._in_one_pass(combine)
        return self._stack.each(self.cut).gather(combine) if gathered is None else gathered

    def _in_one_pass(self, combine: Combine) -> Tensor | None:
        stack, entries = self._stack, self._stack.shape[0] * self._stack.shape[1]
        known = "thresholds" in self.__dict__
        if known or stack.sample is None or entries <= SMALL or not 0 < self._count < entries:
            return None
        samples = [stack.sample(index).abs() for index in range(len(stack))]
        if not place.on_cpu(samples[0]):
            return None
        waiting = Waiting([bracket(sample, self._count / entries) for sample in samples])
        most = most_waiting(entries, len(stack))
        result = samples[0].new_empty(stack.shape, dtype=stack.dtype)
        for rows in stack.rows():
            blocks = [stack.block(index, rows) for index in range(len(stack))]
            waiting.look(rows.start * stack.shape[1], blocks)
            if waiting.number > most:
                return None
            result[rows] = combine(_shrunk(blocks, waiting.upper))
        thresholds = waiting.thresholds(self._count)
        if thresholds is None:
            return None
        self.thresholds = thresholds
        result.view(-1)[waiting.places()] = combine(_shrunk(waiting.values(), thresholds))
        return result


class Waiting:
    """Entries of N matrices that cannot be trimmed before the exact thresholds are known."""

    def __init__(self, brackets: Sequence[tuple[float, float]]) -> None:
        # Whether a 0 is trimmed makes no difference, so that no 0 has to wait.
        self._lower = [max(low, SMALLEST) for low, _ in brackets]
        self.upper = [high for _, high in brackets]
        self.number = 0
        self._above = [0] * len(brackets)
        self._places: list[NDArray[np.int64]] = []
        self._values: list[list[NDArray[np.float32]]] = [[] for _ in brackets]

    def look(self, start: int, blocks: list[Tensor]) -> None:
        """Count and keep, of the blocks whose first entry is number `start` of each matrix."""
        flat = [block.reshape(-1).numpy() for block in blocks]
        for first in range(0, len(flat[0]), PIECE):
            pieces = [values[first : first + PIECE] for values in flat]
            places = np.flatnonzero(self._undecided(pieces))
            self._places.append(places + (start + first))
            self.number += len(places)
            for kept, piece in zip(self._values, pieces, strict=True):
                kept.append(piece[places])

    def _undecided(self, pieces: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
        undecided = np.zeros(len(pieces[0]), bool)
        for index, piece in enumerate(pieces):
            magnitudes = np.abs(piece)
            beyond = magnitudes > self.upper[index]
            self._above[index] += int(np.count_nonzero(beyond))
            undecided |= (magnitudes >= self._lower[index]) ^ beyond
        return undecided

    def thresholds(self, count: int) -> list[float] | None:
        """The `count`-th largest magnitude of each matrix; None if it is not in its bracket."""
        found = []
        for index, low in enumerate(self._lower):
            magnitudes = np.abs(np.concatenate(self._values[index]))
            inside = magnitudes[(magnitudes >= low) & (magnitudes <= self.upper[index])]
            wanted = count - self._above[index]
            if low == SMALLEST and wanted > len(inside):
                found.append(0.0)  # there are not so many that are not 0
            elif 0 < wanted <= len(inside):
                found.append(largest(torch.from_numpy(inside), wanted))
            else:
                return None
        return found

    def places(self) -> Tensor:
        """Where the entries that wait are in the flattened matrix."""
        return torch.from_numpy(np.concatenate(self._places))

    def values(self) -> list[Tensor]:
        """Their values in each matrix."""
        return [torch.from_numpy(np.concatenate(kept)) for kept in self._values]


def most_waiting(entries: int, languages: int) -> int:
    """How many entries may wait: some more than the brackets of smooth samples hold together."""
    share = 2 * STANDARD_ERRORS * 0.5 * math.sqrt(STRIDE / entries)  # inside one bracket
    return int(min(1.0, 1.25 * languages * share) * entries)


def waiting_bytes(entries: int, languages: int) -> int:
    """The most memory that waiting entries take, in pieces and then side by side."""
    return 2 * most_waiting(entries, languages) * (8 + 4 * languages)


def shrink(block: Tensor, threshold: float) -> Tensor:
    """The block with 0, in place, where the magnitude is below the threshold."""
    # hardshrink keeps what lies beyond its bound: the next number below the threshold.
    kind = np.float32 if block.dtype == torch.float32 else np.float64
    bound = float(np.nextafter(kind(threshold), kind(0.0)))
    return torch.hardshrink(block, bound, out=block)


def _shrunk(blocks: list[Tensor], thresholds: Sequence[float]) -> list[Tensor]:
    return [shrink(block, one) for block, one in zip(blocks, thresholds, strict=True)]
