"""Low-rank approximation at sizes where a Krylov space stands in for the whole matrix."""

import math

import numpy as np
import pytest
import torch

from koinize.adapter import Factors
from koinize.merge import approximation
from koinize.merge.approximation import EXACT_SIDE, MOST_BLOCKS, approximate

SIDE, LONG = EXACT_SIDE + 88, 900
COUNT = np.arange(1, SIDE + 1)
SPECTRA = {
    "flat": np.ones(SIDE),
    "nearly flat": COUNT**-0.05,
    "slow": COUNT**-0.25,
    "middling": COUNT**-0.5,
    "fast": COUNT**-1.0,
    "exponential": 0.99**COUNT,
    "a step where it is cut": np.where(COUNT <= 32, 1.0, 0.5),
    "a step before": np.where(COUNT <= 20, 1.0, 0.01),
    "of low rank": np.where(COUNT <= 10, 1.0, 0.0),
}


def with_spectrum(values, rows=SIDE, columns=LONG, seed=0):
    """A matrix with these singular values, and its singular vectors."""
    random = np.random.default_rng(seed)
    U = np.linalg.qr(random.normal(size=(rows, len(values))))[0]
    V = np.linalg.qr(random.normal(size=(columns, len(values))))[0]
    return torch.from_numpy((U * values) @ V.T).float(), U, V


def relative_error(matrix, factors):
    return float((matrix - factors.B @ factors.A).norm() / matrix.norm())


@pytest.mark.parametrize(("rank", "tall"), [(8, False), (32, True), (100, False)])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_error_is_within_a_hundredth_of_the_best(spectrum, rank, tall):
    values = SPECTRA[spectrum]
    matrix, _, _ = with_spectrum(values)
    matrix = matrix.T if tall else matrix
    found = approximate(matrix, 1000, rank, "m")
    best = math.sqrt((values[rank:] ** 2).sum() / (values**2).sum())
    measured = relative_error(matrix, found.factors)
    # Beside the hundredth, float32's own rounding of the products: their sums have 900 terms.
    rounding = 30 * 2.0**-24 * math.sqrt(LONG)
    assert best - rounding <= measured <= 1.01 * best + rounding
    # Lost squares below 1e-10 of all, an error of 1e-5, cannot be told from none.
    assert found.error == pytest.approx(measured, rel=1e-3, abs=2e-4)


@pytest.mark.parametrize("hint", ["right", "of too low a rank", "elsewhere", "nothing"])
def test_a_hint_never_spoils_the_result(hint):
    values = SPECTRA["middling"]
    matrix, U, V = with_spectrum(values)
    width = 32 if hint == "right" else 5
    B, A = torch.from_numpy(U[:, :width]).float(), torch.from_numpy(V[:, :width].T).float()
    if hint == "elsewhere":
        A = torch.randn(width, LONG, generator=torch.Generator().manual_seed(1))
    like = Factors(B=B * (hint != "nothing"), A=A)
    best = math.sqrt((values[32:] ** 2).sum() / (values**2).sum())
    for one, hinted in ((matrix, like), (matrix.T, Factors(B=like.A.T, A=like.B.T))):
        found = approximate(one, 1000, 32, "m", hinted)
        assert relative_error(one, found.factors) <= 1.01 * best


def test_a_right_hint_saves_products(monkeypatch):
    """With the wanted directions to begin with, a second block gains nothing and is the last."""
    blocks = []
    krylov_space = approximation.krylov_space

    def counted(*given):
        space = krylov_space(*given)
        blocks.append(len(space.basis))
        return space

    monkeypatch.setattr(approximation, "krylov_space", counted)
    matrix, U, V = with_spectrum(SPECTRA["middling"])
    like = Factors(B=torch.from_numpy(U[:, :32]).float(), A=torch.from_numpy(V[:, :32].T).float())
    approximate(matrix, 1000, 32, "m", like)
    approximate(matrix, 1000, 32, "m")
    assert blocks[0] == 2 < blocks[1] <= MOST_BLOCKS


def test_a_share_of_the_energy_takes_no_more_directions_than_it_needs():
    values = SPECTRA["fast"]
    matrix, _, _ = with_spectrum(values)
    found = approximate(matrix, 100, 0.9, "m")
    kept = (values**2).cumsum() / (values**2).sum()
    # The Krylov values are at most the true ones, so one direction more may be asked for.
    assert found.factors.rank - 1 - int(np.argmax(kept >= 0.9)) in (0, 1)
    assert relative_error(matrix, found.factors) ** 2 <= 0.1 + 1e-6


def test_the_same_module_gives_the_same_bytes():
    matrix, _, _ = with_spectrum(SPECTRA["middling"])
    one, two = (approximate(matrix, 1000, 16, "m").factors for _ in range(2))
    assert torch.equal(one.B, two.B)
    assert torch.equal(one.A, two.A)
