"""Differences from a trunk, in factors."""

import pytest
import torch

from koinize.adapter import Factors
from koinize.merge.trunk import coefficient, difference

OUTPUTS, INPUTS = 40, 56
EPS = torch.finfo(torch.float32).eps


def factors(seed, rank):
    random = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(OUTPUTS, rank, generator=random), torch.randn(rank, INPUTS, generator=random)
    )


def dense(update):
    return update.B.double() @ update.A.double()


@pytest.mark.parametrize("step", [1.0, 1e-2, 1e-4, 1e-6])
def test_a_small_difference_keeps_its_digits(step):
    """Computed in float32, and as close to the exact one however near the two are."""
    trunk, moved = factors(1, 8), factors(2, 8)
    update = Factors(trunk.B + step * moved.B, trunk.A + step * moved.A)
    exact, found = dense(update) - dense(trunk), difference(update, trunk)
    error = ((found.B @ found.A).double() - exact).norm() / exact.norm()
    assert error <= 16 * EPS  # sums of 16 products


@pytest.mark.parametrize(("rank", "start"), [(3, 3), (2, 5), (5, 2), (0, 3), (3, 0)])
def test_it_is_the_difference_of_any_two(rank, start):
    update, trunk = factors(1, rank), factors(2, start)
    found = difference(update, trunk)
    assert found.rank == rank + start
    assert torch.allclose(dense(found), dense(update) - dense(trunk), rtol=0, atol=64 * EPS)


def test_what_did_not_move_differs_by_nothing():
    trunk = factors(1, 4)
    assert not dense(difference(Factors(trunk.B.clone(), trunk.A.clone()), trunk)).any()


def test_what_is_left_of_the_trunk():
    assert coefficient([1.0]) == 0.0
    assert coefficient([0.1] * 10) == 0.0  # whose sum in float64 is 0.9999999999999999
    assert coefficient([1 / 3] * 3) == 0.0
    assert coefficient([0.5]) == 0.5
    assert coefficient([1.5]) == -0.5
    assert coefficient([1.0, 1.0]) == -1.0
    assert coefficient([1.0 + 2.0**-40]) == -(2.0**-40)  # nobody's rounding
