"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) for many adapters, each a row of one matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from koinize.model.loaded import send

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class RowwiseAdamW:
    """torch.optim.AdamW with its default betas and epsilon, one optimizer per row.

    The operations are torch's, in an order that needs no further memory: each row moves as it
    would alone, to the last bit or the one beside it.
    """

    def __init__(self, values: Tensor) -> None:
        """`values` (rows, width), float32, are changed in place by `step`."""
        self.values = values
        self.first = torch.zeros_like(values)
        self.second = torch.zeros_like(values)

    @torch.no_grad()
    def step(
        self,
        gradients: Tensor,
        rates: Sequence[float],
        decays: Sequence[float],
        steps: Sequence[int],
    ) -> None:
        """One step: learning rate, weight decay and number of this step (from 1) of each row.

        The gradients are overwritten.
        """
        kept = [1 - rate * decay for rate, decay in zip(rates, decays, strict=True)]
        sizes = [-rate / (1 - BETAS[0] ** step) for rate, step in zip(rates, steps, strict=True)]
        roots = [(1 - BETAS[1] ** step) ** 0.5 for step in steps]
        columns = send(torch.tensor([kept, sizes, roots]), self.values.device)[:, :, None]
        if any(decays):
            self.values.mul_(columns[0])
        self.first.lerp_(gradients, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        spread = torch.sqrt(self.second, out=gradients).div_(columns[2]).add_(EPSILON)
        self.values.add_(torch.div(self.first, spread, out=gradients).mul_(columns[1]))

    def keep(self, rows: Tensor) -> None:
        """Forgets all other rows."""
        self.values = self.values[rows]
        self.first = self.first[rows]
        self.second = self.second[rows]
