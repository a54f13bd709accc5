"""Changing the rank of one adapter: a merge of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from koinize.engine import MergeReport, merge_adapters


def resize_adapter(
    adapter: Path | str,
    rank: int | float,
    *,
    out: Path | str,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Write the best approximation of an adapter at a rank, or at a share of its energy.

    The error is in the report and the card. Raises InputError as merging does.
    """
    return merge_adapters(
        {"und": adapter}, recipe="sum", rank=rank, dtype=dtype, out=out, progress=progress
    )
