"""Decompositions whose every result is checked, and asked of another library where it is none.

A library may give NaN for a finite matrix, or numbers that are no decomposition of it, and say
nothing: on some processors torch's float32 eigensolver does, for one matrix in some thousands. So
a result is taken when it is orthonormal and gives the matrix back, seen on a few random vectors z
(Freivalds 1979): Q'(Q z) = z and S (V z) = V (L z), to a multiple of the rounding. Entries that are
not finite fail, and so does an error in a single place. This takes four products with a vector for
each z, where the decomposition takes some thousands; what is taken is not changed by a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from koinize.errors import StepError

# Random vectors on which a result is seen, one at a time: a product with two columns takes as long
# as eight with one. What shows of an error is as large as the error itself in the mean, and smaller
# than a hundredth of it on both with a probability of about 6e-5.
PROBES = 2
# What may differ, in roundings times the size of the matrix. Sound results stay below 5 in
# benchmarks/merge_stress.py, and three libraries gave one of 10 for the same 4 x 4 matrix; wrong
# ones are no decomposition at all.
SLACK = 50.0

Parts = tuple[Tensor, ...]
Driver = Callable[[Tensor], Parts]

_repeats: ContextVar[list[str] | None] = ContextVar("repeats", default=None)


class UnsolvedError(StepError):
    """No library decomposed a matrix whose entries are all finite."""


@contextmanager
def repeats() -> Iterator[list[str]]:
    """Collects the names of the decompositions that this thread has to repeat in the block."""
    found: list[str] = []
    token = _repeats.set(found)
    try:
        yield found
    finally:
        _repeats.reset(token)


def eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, smallest first, and vectors of a symmetric matrix; always on the CPU.

    Matrices of a few hundred are too small to fill a GPU, which takes longer for one of them than
    one core does; and cores take as many at once as there are modules in flight. Raises
    numpy.linalg.LinAlgError for numbers that are not finite, UnsolvedError if no driver succeeds.
    """
    here = symmetric.cpu()
    drivers = (_eigh_first, _eigh_numpy, _eigh_lapack("evr"), _eigh_lapack("ev"))
    values, vectors = _sound("eigh", here, drivers, _is_eigh_of_a_triangle)
    return values.to(symmetric.device), vectors.to(symmetric.device)


def eigvalsh(symmetric: Tensor) -> Tensor:
    """The eigenvalues alone, smallest first, in less than half the time; always on the CPU.

    Without vectors a result is seen by what the values and their squares add up to. Raises as
    `eigh` does.
    """

    def without_vectors(driver: Driver) -> Driver:
        return lambda given: driver(given)[:1]

    drivers = (_eigvalsh_numpy, *map(without_vectors, (_eigh_lapack("evr"), _eigh_lapack("ev"))))
    (values,) = _sound("eigvalsh", symmetric.cpu(), drivers, _are_eigvals_of_a_triangle)
    return values.to(symmetric.device)


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (m x k), S (k, largest first), V' (k x n) with k the shorter side; always on the CPU, and
    given back on the matrix' device. Raises as `eigh` does.
    """

    def torch_svd(given: Tensor) -> Parts:
        return tuple(torch.linalg.svd(given, full_matrices=False))

    drivers = (torch_svd, _svd_lapack("gesdd"), _svd_lapack("gesvd"))
    U, S, Vt = (one.to(matrix.device) for one in _sound("svd", matrix.cpu(), drivers, _is_svd))
    return U, S, Vt


def cholesky(symmetric: Tensor) -> Tensor | None:
    """Lower triangular L with L L' = the given matrix; None if it is not definite.

    Always on the CPU: on a GPU every look at a result waits for it, and torch 2.11 fails where two
    threads ask it for its first decomposition at once.
    """
    here = symmetric.cpu()
    lower, failed = torch.linalg.cholesky_ex(here)
    if failed:
        return None
    size = _norm(here)
    if all(_close(lower @ (lower.T @ z), here @ z, size) for z in _probes(here)):
        returned: Tensor = lower.to(symmetric.device)
        return returned
    _note("cholesky")
    return None


def _sound(
    name: str, matrix: Tensor, drivers: Sequence[Driver], holds: Callable[..., bool]
) -> Parts:
    """The first driver's result that holds."""
    for attempt, driver in enumerate(drivers):
        if attempt == 1:
            if not matrix.isfinite().all():
                raise np.linalg.LinAlgError("numbers that are not finite have no decomposition")
            _note(name)
        try:
            parts = tuple(part.to(matrix) for part in driver(matrix))
        except (np.linalg.LinAlgError, torch.linalg.LinAlgError, ValueError):  # type: ignore[attr-defined]
            continue
        if holds(matrix, *parts):
            return parts
    size = " x ".join(map(str, matrix.shape))
    raise UnsolvedError(f"no library gives the {name} of a {size} matrix in {matrix.dtype}")


def _note(name: str) -> None:
    noted = _repeats.get()
    if noted is not None:
        noted.append(name)


def _eigh_first(matrix: Tensor) -> Parts:
    """In float64 numpy's library takes a fifth less than torch's, in float32 half as much again."""
    return _eigh_numpy(matrix) if matrix.dtype == torch.float64 else torch.linalg.eigh(matrix)


def _eigh_numpy(matrix: Tensor) -> Parts:
    values, vectors = np.linalg.eigh(matrix.double().numpy())
    return torch.from_numpy(values), torch.from_numpy(vectors)


def _eigvalsh_numpy(matrix: Tensor) -> Parts:
    return (torch.from_numpy(np.linalg.eigvalsh(matrix.double().numpy())),)


def _eigh_lapack(driver: str) -> Driver:
    def decompose(matrix: Tensor) -> Parts:
        values, vectors = scipy.linalg.eigh(matrix.double().numpy(), driver=driver)
        return torch.from_numpy(values), torch.from_numpy(vectors)

    return decompose


def _svd_lapack(driver: str) -> Driver:
    def decompose(matrix: Tensor) -> Parts:
        whole = matrix.double().numpy()
        parts = scipy.linalg.svd(whole, full_matrices=False, lapack_driver=driver)
        return tuple(map(torch.from_numpy, parts))

    return decompose


def _is_eigh_of_a_triangle(matrix: Tensor, values: Tensor, vectors: Tensor) -> bool:
    """What libraries decompose: the lower triangle, which rounding may have made another matrix.

    Of updates that cancel, rounding is all that is left.
    """
    if _is_eigh(matrix, values, vectors):
        return True
    return _is_eigh(matrix.tril() + matrix.tril(-1).T, values, vectors)


def _is_eigh(matrix: Tensor, values: Tensor, vectors: Tensor) -> bool:
    size = _norm(matrix)

    def holds(z: Tensor) -> bool:
        turned = vectors @ z
        return _close(vectors.T @ turned, z) and _close(
            matrix @ turned, vectors @ (values * z), size
        )

    return bool((values.diff() >= 0.0).all()) and all(map(holds, _probes(matrix)))


def _are_eigvals_of_a_triangle(matrix: Tensor, values: Tensor) -> bool:
    """By the trace and the norm of what libraries read, the lower triangle."""
    size = _norm(matrix.tril() + matrix.tril(-1).T)
    told = torch.stack([values.sum(), values.new_tensor(_norm(values[None]))])
    wanted = torch.stack([matrix.trace(), values.new_tensor(size)])
    return bool((values.diff() >= 0.0).all()) and _close(told, wanted, len(matrix) * size)


def _is_svd(matrix: Tensor, U: Tensor, S: Tensor, Vt: Tensor) -> bool:
    if matrix.shape[0] < matrix.shape[1]:  # the side that is square leaves no direction out
        matrix, U, Vt = matrix.T, Vt.T, U.T
    size = _norm(matrix)

    def holds(z: Tensor) -> bool:
        left, right = U @ z, Vt.T @ z
        return (
            _close(U.T @ left, z)
            and _close(Vt @ right, z)
            and _close(matrix @ right, U @ (S * z), size)
        )

    ordered = bool((S.diff() <= 0.0).all() and (S >= 0.0).all())
    return ordered and all(map(holds, _probes(matrix)))


def _close(one: Tensor, other: Tensor, size: float = 1.0) -> bool:
    """Whether two vectors differ by no more than a matrix of this norm explains by rounding."""
    kind = torch.finfo(one.dtype)
    allowed = len(one) * (SLACK * kind.eps * size + kind.tiny)
    return float(torch.linalg.vector_norm(one - other)) <= allowed  # which NaN is not


def _norm(matrix: Tensor) -> float:
    """The Frobenius norm, also of entries whose squares underflow or overflow."""
    norm = float(torch.linalg.vector_norm(matrix))
    if not matrix.numel() or torch.finfo(matrix.dtype).tiny < norm**2 < math.inf:
        return norm
    largest = matrix.abs().max()
    return float(largest * torch.linalg.vector_norm(matrix / largest)) if largest else 0.0


def _probes(matrix: Tensor) -> list[Tensor]:
    """Vectors of +1 and -1, as long as a row, and the same ones always."""
    drawn = _signs(matrix.shape[1]).to(matrix)
    return list(drawn)


@cache
def _signs(size: int) -> Tensor:
    random = torch.Generator().manual_seed(size)
    return torch.randint(0, 2, (PROBES, size), generator=random, dtype=torch.int8) * 2 - 1
