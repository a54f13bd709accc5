"""`--max-cost` and `--max-time`: refuse what may turn out dearer or longer than somebody allows."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from koinize.cli.plan_view import amount, duration
from koinize.errors import InputError, LimitError
from koinize.pipeline import Plan

SECONDS = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "": 1.0}
TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|s|)\s*")


@dataclass(frozen=True)
class Limits:
    """The most that a run may cost, and the most wall seconds of it; None is no limit."""

    cost: float | None = None
    seconds: float | None = None

    @classmethod
    def read(cls, cost: str | None, time: str | None) -> Limits:
        """From the options as they were given. Raises InputError."""
        return cls(
            None if cost is None else read_cost(cost), None if time is None else read_time(time)
        )

    def check(self, todo: Plan) -> None:
        """Raises LimitError when the upper end of an estimate lies above its limit.

        Raises InputError for a limit on the cost of a project without a price.
        """
        cost = todo.cost(todo.wall)
        if self.cost is not None and cost is None:
            raise InputError(
                "there is no price to reckon with",
                where="--max-cost",
                remedy="say under `price` in koinize.yaml what an hour of this machine costs",
            )
        refused = []
        if self.cost is not None and cost is not None and cost.high > self.cost:
            currency = todo.price["currency"]
            interval = f"{amount(cost.low)} to {amount(cost.high)}"
            said = f"{amount(cost.value)} {currency} ({interval})"
            refused.append(f"may cost {said}, above --max-cost {amount(self.cost)}")
        if self.seconds is not None and todo.wall.high > self.seconds:
            interval = f"{duration(todo.wall.low)} to {duration(todo.wall.high)}"
            said = f"{duration(todo.wall.value)} ({interval})"
            refused.append(f"may take {said}, above --max-time {duration(self.seconds)}")
        if refused:
            steps = (
                "1 missing step" if len(todo.missing) == 1 else f"{len(todo.missing)} missing steps"
            )
            raise LimitError(
                f"not started: {steps} {' and '.join(refused)}", remedy="raise the limit or do less"
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
