"""Selection at sizes where the shortcuts are taken, and the bases of awkward factors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from koinize.adapter import Factors
from koinize.merge.compose import SPACES
from koinize.merge.select import SMALL, STRIDE, magnitude_threshold, stack_threshold
from koinize.merge.stack import Stack


@pytest.mark.parametrize("share", [1e-5, 0.1, 0.5, 0.9, 0.99999])
@pytest.mark.parametrize("kind", ["normal", "sorted", "ties", "zeros"])
def test_the_threshold_is_exact_whatever_the_order(share, kind):
    random = np.random.default_rng(1)
    values = random.normal(size=3 * SMALL + 17).astype(np.float32)
    values = {
        "normal": values,
        "sorted": np.sort(values),  # a strided sample is as good, a leading one would mislead
        "ties": np.round(values, 1),
        "zeros": values * (random.random(len(values)) < 0.05),
    }[kind]
    count = int(share * len(values))
    wanted = np.sort(np.abs(values))[::-1][count - 1]
    assert magnitude_threshold(torch.from_numpy(values.copy()), count) == wanted


def test_a_sample_that_misleads_costs_no_exactness():
    values = np.ones(2 * SMALL, np.float32)
    values[1::2] = np.linspace(2, 3, SMALL)
    values[::STRIDE] = 1e-3  # all that the sample sees
    count = SMALL // 2
    wanted = np.sort(values)[::-1][count - 1]
    assert magnitude_threshold(torch.from_numpy(values.copy()), count) == wanted


def stack_with(entries, sample):
    """One X_i of 300 rows in tiles of 7, with this sample of it."""
    X = torch.from_numpy(entries.reshape(300, -1))
    return Stack("m", ("en",), tuple(X.shape), lambda _, rows: X[rows].clone(), group=7,
                 sample=lambda _: sample)  # fmt: skip


@pytest.mark.parametrize("share", [1e-5, 0.1, 0.5, 0.99999])
@pytest.mark.parametrize("sampled", ["fair", "misleading", "none"])
def test_the_threshold_of_tiles_is_that_of_the_whole(monkeypatch, share, sampled):
    monkeypatch.setattr("koinize.merge.stack.TILE_ELEMENTS", 5000)
    entries = np.random.default_rng(2).normal(size=300 * 301).astype(np.float32)
    assert len(entries) > SMALL
    samples = {"fair": entries[::97], "misleading": np.full(500, 9.0, np.float32), "none": None}
    sample = None if samples[sampled] is None else torch.from_numpy(samples[sampled].copy())
    stack = stack_with(entries, sample)
    if sampled == "none":
        stack = replace(stack, sample=None)
    count = min(int(share * len(entries)) + 1, len(entries) - 1)
    wanted = np.sort(np.abs(entries))[::-1][count - 1]
    assert stack_threshold(stack, 0, count) == wanted


@pytest.mark.parametrize("space", ["dense", "knots"])
def test_a_space_samples_its_own_entries(space):
    """The sampled magnitudes have the quantiles of all, also where some rows are far larger."""
    random = torch.Generator().manual_seed(3)
    B = torch.randn(600, 4, generator=random) * torch.logspace(0, 1, 600)[:, None]
    (part,) = SPACES.get(space)([Factors(B, torch.randn(4, 900, generator=random))]).parts
    whole = part.block(0, slice(0, part.shape[0])).abs().double().flatten()
    sample = part.sample(0).abs().double().flatten()
    assert 0.9 < len(sample) * STRIDE / len(whole) < 1.1
    # Of n = 8,860 (dense) or 60 (knots, which is 4 x 900) entries, six standard errors of a share.
    for share in (0.25, 0.5, 0.75):
        below = float((sample < whole.quantile(share)).double().mean())
        assert abs(below - share) <= 6 * math.sqrt(share * (1 - share) / len(sample))


def test_nothing_and_everything():
    assert magnitude_threshold(torch.ones(4), 0) == math.inf
    assert magnitude_threshold(torch.ones(4), 4) == 0.0
