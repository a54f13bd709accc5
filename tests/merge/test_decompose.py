"""Decompositions: what a library gets wrong is seen, and another one asked."""

import numpy as np
import pytest
import torch

from koinize.errors import StepError
from koinize.merge import decompose
from koinize.merge.decompose import UnsolvedError, cholesky, eigh, eigvalsh, repeats, svd
from koinize.merge.linalg import root

DTYPES = [torch.float32, torch.float64]
SPECTRA = {
    "flat": lambda n: np.ones(n),
    "steep": lambda n: 10.0 ** -np.linspace(0, 12, n),
    "deficient": lambda n: (np.arange(n) < n / 2).astype(float),
    "zero": lambda n: np.zeros(n),
    "tiny": lambda n: 1e-19 * np.ones(n),  # whose squares, and theirs, leave float32
    "subnormal": lambda n: 1e-156 * 10.0 ** -np.linspace(0, 12, n),
}


def matrix(rows, columns, spectrum, dtype):
    """A matrix with these singular values."""
    random, count = np.random.default_rng(rows + columns), min(rows, columns)
    U, V = (np.linalg.qr(random.normal(size=(side, count)))[0] for side in (rows, columns))
    return torch.from_numpy((U * SPECTRA[spectrum](count)) @ V.T).to(dtype)


def rounding(dtype, size):
    return 10 * size * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_a_sound_result_is_taken_as_it_comes(size, spectrum, dtype):
    tall = matrix(size + 3, size, spectrum, torch.float64)
    gram = (tall.T @ tall).to(dtype)
    with repeats() as repeated:
        values, vectors = eigh(gram)
        alone = eigvalsh(gram)
        parts = [svd(one) for one in (tall.to(dtype), tall.T.to(dtype))]
    assert not repeated
    wanted = np.linalg.eigvalsh(gram.double().numpy())
    assert np.abs(values.double().numpy() - wanted).max() <= rounding(dtype, size)
    assert np.abs(alone.double().numpy() - wanted).max() <= rounding(dtype, size)
    first = np.linalg.eigh if dtype == torch.float64 else torch.linalg.eigh
    assert np.array_equal(vectors.numpy(), np.asarray(first(gram)[1]))
    singular = np.sort(SPECTRA[spectrum](size))[::-1]
    for U, S, Vt in parts:
        assert np.abs(S.double().numpy() - singular).max() <= rounding(dtype, size + 3)
        assert U.shape[1] == Vt.shape[0] == size


def test_the_lower_triangle_is_what_counts():
    """Libraries read it alone, and rounding may be all that a matrix is made of."""
    random = torch.Generator().manual_seed(1)
    given = torch.randn(9, 9, generator=random, dtype=torch.float64)
    with repeats() as repeated:
        values, vectors = eigh(given)
        assert float((eigvalsh(given) - values).abs().max()) <= rounding(torch.float64, 9)
    assert not repeated
    symmetric = given.tril() + given.tril(-1).T
    left = (vectors * values) @ vectors.T - symmetric
    assert float(left.abs().max()) <= rounding(torch.float64, 9) * float(symmetric.norm())


def damaged(part, how):
    """A result with a fault; `how` says where."""
    part = part.contiguous().clone()
    if how == "nan":
        part[-1] = torch.nan
    elif how == "infinite":
        part[0] = torch.inf
    elif how == "turned round":
        part = part.flip(0)
    else:  # the smallest fault that matters in float32
        part.view(-1)[len(part) // 2] += 1e-3
    return part


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", ["nan", "infinite", "turned round", "one entry off"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_wrong_eigh_is_repeated(monkeypatch, which, how, dtype):
    gram = matrix(30, 30, "steep", torch.float64)
    gram = (gram.T @ gram).to(dtype)

    def wrong(given):
        parts = [torch.from_numpy(part) for part in np.linalg.eigh(given.numpy())]
        parts[which] = damaged(parts[which], how)
        return parts

    monkeypatch.setattr(decompose, "_eigh_first", wrong)
    with repeats() as repeated:
        values, vectors = eigh(gram)
    assert repeated == ["eigh"]
    assert values.dtype == vectors.dtype == dtype
    left = (vectors * values) @ vectors.T - gram
    assert float(left.abs().max()) <= rounding(dtype, 30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", ["nan", "infinite", "turned round", "one entry off"])
def test_wrong_eigenvalues_are_repeated(monkeypatch, how, dtype):
    gram = matrix(30, 30, "steep", torch.float64)
    gram = (gram.T @ gram).to(dtype)

    def wrong(given):
        return (damaged(torch.from_numpy(np.linalg.eigvalsh(given.numpy())), how),)

    monkeypatch.setattr(decompose, "_eigvalsh_numpy", wrong)
    with repeats() as repeated:
        values = eigvalsh(gram)
    assert repeated == ["eigvalsh"]
    assert values.dtype == dtype
    right = np.linalg.eigvalsh(gram.double().numpy())
    assert np.abs(values.double().numpy() - right).max() <= rounding(dtype, 30)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@pytest.mark.parametrize("how", ["nan", "one entry off", "turned round"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_wrong_svd_is_repeated(monkeypatch, which, how, shape):
    given = matrix(*shape, "steep", torch.float32)
    right = torch.linalg.svd

    def wrong(matrix, **options):
        parts = list(right(matrix, **options))
        parts[which] = damaged(parts[which], how)
        return parts

    monkeypatch.setattr(torch.linalg, "svd", wrong)
    with repeats() as repeated:
        U, S, Vt = svd(given)
    assert repeated == ["svd"]
    assert float(((U * S) @ Vt - given).abs().max()) <= rounding(torch.float32, 30)


def test_a_small_matrix_on_which_libraries_round_much_is_decomposed():
    # Products of two bases of adapters; here three of LAPACK's ways are 10 roundings off.
    given = torch.tensor(
        [
            [0.9333444439170713, -0.07029350164940207, 0.1913726263500778, 0.07756809273077986],
            [-0.03759716356736728, -0.9888600871754456, 0.007806708432556014, -0.03789249561852766],
            [-0.20863615968477311, 0.011972454367598029, 0.954546425635016, 0.2069157515430364],
            [-0.0583129656644541, -0.03796051274134442, -0.22192730160969146, 0.9618450085381028],
        ],
        dtype=torch.float64,
    )
    U, S, Vt = svd(given)
    # 100 roundings of a matrix of norm 2.
    assert float(((U * S) @ Vt - given).abs().max()) <= 100 * torch.finfo(torch.float64).eps * 2


def test_a_wrong_cholesky_gives_way_to_eigenvalues(monkeypatch):
    tall = matrix(30, 20, "flat", torch.float64)
    gram, right = tall.T @ tall, torch.linalg.cholesky_ex

    def wrong(matrix):
        lower, failed = right(matrix)
        return damaged(lower, "one entry off"), failed

    assert cholesky(-gram) is None  # which is no fault of the library
    monkeypatch.setattr(torch.linalg, "cholesky_ex", wrong)
    with repeats() as repeated:
        lower = root(gram)
    assert repeated == ["cholesky"]
    assert float((lower @ lower.T - gram).abs().max()) <= rounding(torch.float64, 20)


def test_nothing_has_a_factor():
    """The Gram matrix of an adapter that leaves a module alone."""
    assert cholesky(torch.zeros(0, 0)).shape == (0, 0)


def test_a_library_that_gives_up_is_followed_by_the_next(monkeypatch):
    def fail(*_, **__):
        raise np.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(decompose, "_eigh_first", fail)
    with repeats() as repeated:
        values, _ = eigh(torch.eye(3, dtype=torch.float64))
    assert (values == 1.0).all()
    assert repeated == ["eigh"]
    monkeypatch.setattr(decompose, "_eigh_numpy", fail)
    monkeypatch.setattr(decompose.scipy.linalg, "eigh", fail)
    with pytest.raises(UnsolvedError) as caught:
        eigh(torch.eye(3, dtype=torch.float64))
    assert str(caught.value) == "no library gives the eigh of a 3 x 3 matrix in torch.float64"
    assert isinstance(caught.value, StepError)


@pytest.mark.parametrize("decomposed", [eigh, svd])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("size", [1, 2, 40])
def test_what_is_not_finite_has_no_decomposition(decomposed, dtype, value, size):
    """One error for all libraries, which may also return NaN and say nothing."""
    given = torch.eye(size, dtype=dtype)
    given[-1, -1] = value
    with repeats() as repeated, pytest.raises(np.linalg.LinAlgError):
        decomposed(given)
    assert not repeated  # it is not the library's fault
