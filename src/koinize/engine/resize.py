"""Changing the rank of one adapter: a merge of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from koinize.adapter import read_header
from koinize.engine.merging import MergeReport, merge_adapters
from koinize.errors import InputError


def resize_adapter(
    adapter: Path | str,
    rank: int | float,
    *,
    out: Path | str,
    dtype: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Write the best approximation of an adapter at a rank, or at a share of its energy.

    The error is in the report and the card; that the rank is above the adapter's own, which it then
    keeps, is in the report's notes. Raises InputError as merging does, and for rank "full".
    """
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
    if not whole and not (isinstance(rank, float) and 0.0 < rank < 1.0):
        raise InputError(f"rank {rank!r} is not a number from 1, or a share between 0 and 1")
    header = read_header(adapter)
    report = merge_adapters(
        {"und": adapter}, recipe="sum", rank=rank, dtype=dtype, out=out, progress=progress
    )
    largest = max(module.rank for module in header.modules.values())
    if rank <= largest:
        return report
    note = f"rank {rank} is above the adapter's own, {largest}, which the result keeps"
    return replace(report, notes=(*report.notes, note))
