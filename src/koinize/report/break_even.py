"""When a dearer set-up has been paid back by cheaper updates."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from koinize.report.cost_figures import BreakEven

Figure = Decimal | None


def break_even(setup: Figure, combined: Figure, update: Figure) -> BreakEven | None:
    """Merging against COMB by one clock (or in money); None when one of the three is unknown.

    `setup` is what setting up took, `update` what one language's update takes, both with merging;
    `combined` is what COMB takes, in the beginning and again for each update. In the result `extra`
    is what the set-up took more, `saved` what each update takes less; after `updates` of them
    merging has cost no more than COMB in all. That is None if it never will. `until` is the number
    of updates from which on it has cost more again, where an update takes more than COMB.
    """
    if setup is None or combined is None or update is None:
        return None
    extra, saved = Decimal(setup) - combined, Decimal(combined) - update
    updates: int | None = 0
    until = None
    if extra > 0:
        updates = _ceiling(extra / saved) if saved > 0 else None
    elif saved < 0:
        until = int(extra / saved) + 1
    return {"extra": float(extra), "saved": float(saved), "updates": updates, "until": until}


def _ceiling(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_CEILING))
