"""What `--max-cost` and `--max-time` say."""

from __future__ import annotations

import math
import re

from koinize.errors import InputError
from koinize.pipeline.limits import Limits

SECONDS = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "": 1.0}
TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|s|)\s*")


def read_limits(cost: str | None, time: str | None) -> Limits:
    """The limits as the options say them. Raises InputError."""
    return Limits(
        None if cost is None else read_cost(cost),
        None if time is None else read_time(time),
        ("--max-cost", "--max-time"),
    )


def read_cost(text: str) -> float:
    """An amount of money from 0 up. Raises InputError."""
    try:
        cost = float(text)
    except ValueError:
        cost = math.nan
    if not 0 <= cost < math.inf:
        raise InputError(f"'{text}' is no amount", where="--max-cost", expected="such as 0.50")
    return cost


def read_time(text: str) -> float:
    """Seconds: a bare number of them, or numbers with h, min (or m) and s. Raises InputError."""
    found = TIME.findall(text)
    if not found or TIME.sub("", text).strip() or any(not unit for _, unit in found[1:]):
        raise InputError(
            f"'{text}' is no time", where="--max-time", expected="such as 5400, 90min, 1h30m or 2h"
        )
    return sum(float(number) * SECONDS[unit] for number, unit in found)
