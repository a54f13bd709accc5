"""Rows of one matrix against torch's own AdamW, one optimizer for each."""

from __future__ import annotations

import pytest
import torch

from koinize.train.adamw import RowwiseAdamW

ROUNDING = 11 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("decays", [(0.0, 0.0, 0.0), (0.0, 0.1, 0.01)])
def test_each_row_moves_as_torch_moves_it(decays):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 101, generator=generator)
    alone = [row.clone().requires_grad_() for row in values]
    # A row that joined later has made fewer steps: its bias corrections are its own.
    begins, rates = (0, 0, 4), (1e-2, 3e-4, 1.0)
    torchs = [
        torch.optim.AdamW([row], lr=rate, weight_decay=decay)
        for row, rate, decay in zip(alone, rates, decays, strict=True)
    ]
    ours = RowwiseAdamW(values)
    for step in range(1, 12):
        gradients = torch.randn(3, 101, generator=generator) * 10.0**-step
        for row, optimizer, gradient, begin in zip(alone, torchs, gradients, begins, strict=True):
            if step > begin:
                row.grad = gradient.clone()
                optimizer.step()
            else:
                gradient.zero_()
        numbers = [max(1, step - begin) for begin in begins]
        scheduled = [
            rate if step > begin else 0.0 for rate, begin in zip(rates, begins, strict=True)
        ]
        ours.step(gradients, scheduled, decays, numbers)
    expected = torch.stack([row.detach() for row in alone])
    # Values and updates are of size 1, and each of 11 steps may round its last bit otherwise.
    assert torch.allclose(values, expected, rtol=ROUNDING, atol=ROUNDING)
