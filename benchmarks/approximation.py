"""From which rank on everything at once costs less than a Krylov space: one core, CPU seconds.

    OMP_NUM_THREADS=1 python benchmarks/approximation.py > benchmarks/results/approximation.md

What TIES makes of updates of low rank (their smallest entries gone) is approximated in both ways,
at several shapes and ranks; a block has as many columns as the rank. `approximation.EXACT_BLOCKS`
follows from it: a matrix whose shorter side is at most so many blocks is decomposed exactly.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from koinize.merge import approximation
from koinize.merge.approximation import Approximation, approximate

SHAPES = ((640, 1024), (640, 2048), (1024, 2048), (1024, 4096), (1536, 4096), (2048, 4096))
RANKS = (32, 80, 160, 320)
DROPPED, DECAY, REPEATS = 0.7, 0.97, 3


def trimmed(rows: int, columns: int, rank: int) -> Tensor:
    """An update of this rank whose smallest entries are 0."""
    random = torch.Generator().manual_seed(rows + columns + rank)
    left = torch.randn(rows, rank, generator=random) * DECAY ** torch.arange(rank)
    update = left @ torch.randn(rank, columns, generator=random)
    smallest = update.abs().flatten().kthvalue(int(DROPPED * update.numel())).values
    return update * (update.abs() > smallest)


def timed(work: Callable[[], Approximation]) -> tuple[float, Approximation]:
    """CPU milliseconds, the best of some, and the result."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        found = work()
        seconds.append(time.process_time() - began)
    return 1000 * min(seconds), found


def main() -> None:
    """The table."""
    torch.set_num_threads(1)
    print("# Approximating a matrix: a Krylov space, and everything at once\n")
    print(f"`python benchmarks/approximation.py`, one of {os.cpu_count()} cores, CPU milliseconds, "
          f"the best of {REPEATS}.\n")  # fmt: skip
    print(
        "| shape | rank | side / block | Krylov | its error | exact | its error | Krylov / exact |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for rows, columns in SHAPES:
        for rank in RANKS:
            matrix = trimmed(rows, columns, max(80, rank))
            each = []
            for is_small in (False, True):
                with patch.object(approximation, "_is_small", lambda *_, now=is_small: now):
                    each.append(timed(lambda given=matrix, r=rank: approximate(given, r, r, "m")))
            (krylov, near), (exact, best) = each
            blocks = rows / max(approximation.NARROWEST_BLOCK, rank)
            print(
                f"| {rows} x {columns} | {rank} | {blocks:.1f} | {krylov:.0f} | {near.error:.4f} | "
                f"{exact:.0f} | {best.error:.4f} | {krylov / exact:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
