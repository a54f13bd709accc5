"""The tail average: the mean of the parameters after each of the last steps.

A step at a rate that has not decayed moves every parameter by about as much as the one before it,
so where a training ends is partly chance. The mean over the last steps has less of that (Polyak and
Juditsky, SIAM J. Control Optim. 30, 1992; of the last part alone: Izmailov et al., arXiv
1803.05407). The factors A and B are averaged each: close together, as they are by then, that is the
mean of their products but for a term of second order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TailAverage:
    """The running mean of some tensors, in float32: one copy of them, whatever the steps."""

    def __init__(self, share: float, planned: int) -> None:
        """Over the last `share` of the planned steps; 0 is the last step alone."""
        self.planned = planned
        self.first = planned - max(1, round(share * planned)) + 1
        self.mean: list[Tensor] = []

    @torch.no_grad()
    def take(self, step: int, parameters: Sequence[Tensor]) -> None:
        """Take in the parameters after a step (from 1); after the last one they become the mean."""
        if self.first == self.planned or step < self.first:
            return
        if step == self.first:
            self.mean = [one.detach().float().clone() for one in parameters]
        for mean, one in zip(self.mean, parameters, strict=True):
            mean.lerp_(one.detach().float(), 1 / (step - self.first + 1))
        if step == self.planned:
            for mean, one in zip(self.mean, parameters, strict=True):
                one.copy_(mean)
