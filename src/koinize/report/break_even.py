"""When a dearer set-up has been paid back by cheaper updates."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from koinize.report.cost_figures import BreakEven

Figure = Decimal | None
DIGITS = 9
"""Of a number of updates: the mean of three decimals is rounded in its 28th digit, and what is 162
updates exactly may be a trace more."""


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
    extra, saved = (_exactly(one) for one in (setup - combined, combined - update))
    updates: int | None = 0
    until = None
    if extra > 0:
        updates = ceil(round(extra / saved, DIGITS)) if saved > 0 else None
    elif saved < 0:
        until = floor(round(extra / saved, DIGITS)) + 1
    return {"extra": float(extra), "saved": float(saved), "updates": updates, "until": until}


def _exactly(value: Decimal) -> Fraction:
    return round(Fraction(value), 2 * DIGITS)
