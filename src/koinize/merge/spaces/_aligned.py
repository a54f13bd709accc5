"""What every space gives: coordinates of the updates, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from koinize.adapter import Factors


@dataclass(frozen=True, slots=True)
class Aligned:
    """Coordinates X_i (shape) of N updates of one module, as blocks of rows.

    lift: factors of a merged X to factors of the merged update. It keeps singular values, so the
    truncation of X is the truncation of the update.
    """

    shape: tuple[int, int]
    block: Callable[[int, slice], Tensor]
    lift: Callable[[Factors], Factors]
    dtype: torch.dtype = torch.float32
