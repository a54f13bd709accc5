"""Combinations that are linear in the updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from koinize.merge.stack import Stack


class Linear:
    """sum c_i X_i, with the coefficients c computed from the weights.

    Without sparsifying it is the same in all coordinates, so it is then done on the factors,
    exactly, and no X_i is ever formed.
    """

    def __init__(self, coefficients: Callable[[Sequence[float]], list[float]]) -> None:
        self.coefficients = coefficients

    def __call__(self, stack: Stack, weights: Sequence[float]) -> Tensor:
        """The sum, added in the order of the languages so that it never depends on tiles."""
        coefficients = self.coefficients(weights)

        def add(blocks: list[Tensor]) -> Tensor:
            total = blocks[0].mul_(coefficients[0])
            for block, coefficient in zip(blocks[1:], coefficients[1:], strict=True):
                total.add_(block, alpha=coefficient)
            return total

        return stack.gather(add)
