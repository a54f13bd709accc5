"""Low-rank approximation at sizes where a Krylov space stands in for the whole matrix."""

import math

import numpy as np
import pytest
import torch

from koinize.adapter import Factors
from koinize.merge import approximation
from koinize.merge.approximation import EXACT_BLOCKS, EXACT_SIDE, MOST_BLOCKS, approximate

SIDE, LONG = EXACT_SIDE + 88, 900
COUNT = np.arange(1, SIDE + 1)
ROUNDING = 2.0**-24 * math.sqrt(LONG)
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
    assert best - ROUNDING <= measured <= 1.01 * best + ROUNDING
    assert found.error == pytest.approx(measured, rel=1e-3, abs=ROUNDING)


@pytest.mark.parametrize("tall", [False, True])
def test_a_side_of_few_blocks_is_decomposed_exactly(monkeypatch, tall):
    """Where a Krylov space would have most of the side's directions, all of them cost less."""
    monkeypatch.setattr(approximation, "krylov_space", None)
    values = SPECTRA["slow"]
    matrix, _, _ = with_spectrum(values)
    found = approximate(matrix.T if tall else matrix, 1000, -(-SIDE // EXACT_BLOCKS), "m")
    best = math.sqrt((values[SIDE // EXACT_BLOCKS :] ** 2).sum() / (values**2).sum())
    assert found.error == pytest.approx(best, abs=ROUNDING)


def one_entry():
    matrix = torch.zeros(SIDE, LONG)
    matrix[5, 7] = 3.0
    return matrix


def few_rows(count):
    matrix = torch.zeros(SIDE, LONG)
    matrix[:count] = torch.randn(count, LONG, generator=torch.Generator().manual_seed(2))
    return matrix


def of_rank(rank, noise=0.0):
    random = torch.Generator().manual_seed(3)
    product = torch.randn(SIDE, rank, generator=random) @ torch.randn(rank, LONG, generator=random)
    return product + noise * torch.randn(SIDE, LONG, generator=random)


ODD = {
    "one entry": one_entry,
    "zeros": lambda: torch.zeros(SIDE, LONG),
    "ones": lambda: torch.ones(SIDE, LONG),
    "30 rows": lambda: few_rows(30),
    "64 rows": lambda: few_rows(64),
    "rank 32": lambda: of_rank(32),
    "rank 33": lambda: of_rank(33),
    "rank 20 and little else": lambda: of_rank(20, noise=1e-3),
    "rank 20 and hardly anything else": lambda: of_rank(20, noise=1e-5),
    "tiny": lambda: of_rank(50) * 1e-30,
    "huge": lambda: of_rank(50) * 1e30,
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_matrix_is_approximated_and_its_error_told(kind):
    matrix = ODD[kind]()
    found = approximate(matrix.clone(), 32, "full", "m")
    exact = matrix.double()
    values = torch.linalg.svdvals(exact)
    norm = float(values.square().sum().sqrt()) or 1.0
    best = float(values[32:].square().sum().sqrt()) / norm
    measured = float((exact - found.factors.B.double() @ found.factors.A.double()).norm()) / norm
    assert 1 <= found.factors.rank <= 32
    assert measured <= 1.01 * best + ROUNDING
    assert found.error == pytest.approx(measured, rel=1e-3, abs=ROUNDING)


@pytest.mark.parametrize(
    "hint", ["right", "of too low a rank", "elsewhere", "the next ones", "nothing"]
)
def test_a_hint_never_spoils_the_result(hint):
    values = SPECTRA["middling"]
    matrix, U, V = with_spectrum(values)
    # "the next ones": directions that lead nowhere else, for the matrix maps them to one another.
    wanted = {"right": slice(0, 32), "the next ones": slice(32, 64)}.get(hint, slice(0, 5))
    B, A = torch.from_numpy(U[:, wanted]).float(), torch.from_numpy(V[:, wanted].T).float()
    if hint == "elsewhere":
        A = torch.randn(5, LONG, generator=torch.Generator().manual_seed(1))
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
