"""Intervals for the tests of estimates."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from koinize import machine
from koinize.ledger import Interval


def interval(
    kind: str,
    seconds: str,
    units: int,
    status: str = "done",
    *,
    step: str = "",
    run: str = "r",
    device: str = "",
) -> Interval:
    """One finished piece of work on this machine, of no task unless `step` says so."""
    return Interval(
        id="i",
        run=run,
        step=step or kind,
        kind=kind,
        artifact="a",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=Decimal(seconds),
        share=Decimal("0.5"),
        device=device or machine.device(),
        status=status,
        tokens=0,
        units=units,
        error="",
        price={},
    )
