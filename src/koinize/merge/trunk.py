"""Updates relative to a trunk: an adapter that all of them were trained on from.

A branch is near its trunk, so D_i - D_T as a difference of two products would lose digits. It is
written in the steps b_i = B_i - B_T and a_i = A_i - A_T that training took instead, whose entries
are differences of neighbouring numbers, exact or nearly so:

    D_i - D_T = b_i A_i + B_T a_i

with r_i + r_T columns. That is true of any two adapters; where ranks differ, the columns and rows
that one of them lacks are 0. A branch that is equal to the trunk differs from it by exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import torch
from torch import Tensor

from koinize.adapter import Factors

ROUNDING = 2.0**-52


@dataclass(frozen=True, slots=True)
class Branch:
    """The steps from a trunk of rank t to an update of rank r.

    B: outputs x r, A: max(r, t) x inputs. The update's own A is the first r rows of A plus A_T's.
    """

    B: Tensor
    A: Tensor


def branch(update: Factors, trunk: Factors) -> Branch:
    """The steps that lead from the trunk to this update."""
    shared = min(update.rank, trunk.rank)
    B = update.B.clone()
    B[:, :shared] -= trunk.B[:, :shared]
    A = update.A.new_zeros(max(update.rank, trunk.rank), update.A.shape[1])
    A[: update.rank] = update.A
    A[: trunk.rank] -= trunk.A
    return Branch(B, A)


def difference(update: Factors, trunk: Factors) -> Factors:
    """D_i - D_T as one product of rank r_i + r_T."""
    steps = branch(update, trunk)
    return Factors(
        B=torch.cat([steps.B, trunk.B], dim=1),
        A=torch.cat([update.A, steps.A[: trunk.rank]], dim=0),
    )


def is_equal(update: Factors, trunk: Factors) -> bool:
    """Whether an update has the trunk's own factors, so that their difference is 0."""
    return torch.equal(update.B, trunk.B) and torch.equal(update.A, trunk.A)


def coefficient(others: Sequence[float]) -> float:
    """What D_T is multiplied by in D_T + sum c_i (D_i - D_T): 1 - sum c_i.

    0 where it is no more than the rounding of the c_i, so that a mean at scale 1 needs no trunk.
    """
    left = fsum([1.0, *(-one for one in others)])
    rounding = ROUNDING * len(others) * fsum(map(abs, others))
    return left if abs(left) > rounding else 0.0
