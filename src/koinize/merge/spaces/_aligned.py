"""What every space gives: coordinates of the updates, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from koinize.adapter import Factors


@dataclass(frozen=True, slots=True)
class Part:
    """Matrices X_i of one shape, as blocks of rows; `weights` are what w_i becomes on them.

    Rows are computed in groups of `group`; asking for a part of a group costs as much as all of it.
    `sample(i)` is a fair sample of the entries of X_i, for who wants to know their distribution.
    Where there are two, each has a `name`, so that random masks of the two are independent.
    """

    shape: tuple[int, int]
    block: Callable[[int, slice], Tensor]
    dtype: torch.dtype = torch.float32
    weights: Callable[[Sequence[float]], list[float]] = list
    group: int = 1
    sample: Callable[[int], Tensor] | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Aligned:
    """Coordinates of N updates of one module: one part, or the two factors (A, B) apart.

    lift: factors of a merged X to factors of the merged update. With one part it keeps singular
    values, so the truncation of X is the truncation of the update. like: a product that a merged X
    resembles, where X is too large to look for its strongest directions without a hint.
    add_trunk: a merged X to that of the trunk and the merge together; X is used up, and what is
    given may have more rows and columns, for which `lift` is meant then.
    """

    parts: tuple[Part, ...]
    lift: Callable[[Factors], Factors]
    like: Factors | None = None
    add_trunk: Callable[[Tensor], Tensor] | None = None


def adding(trunk: Factors) -> Callable[[Tensor], Tensor]:
    """Adds a trunk, given in coordinates of which X may lack the last rows and columns."""
    rows, columns = trunk.B.shape[0], trunk.A.shape[1]

    def add(merged: Tensor) -> Tensor:
        lacking = (0, columns - merged.shape[1], 0, rows - merged.shape[0])
        return (pad(merged, lacking) if any(lacking) else merged).addmm_(trunk.B, trunk.A)

    return add
