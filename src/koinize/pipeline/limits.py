"""What a run may cost and how long it may take: refuse what may turn out dearer or longer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from koinize.errors import InputError, LimitError
from koinize.pipeline.estimate import amount, duration
from koinize.pipeline.plan import Plan


@dataclass(frozen=True)
class Limits:
    """The most that a run may cost, and the most wall seconds of it; None is no limit.

    `called` is what whoever set them calls the two.
    """

    cost: float | None = None
    seconds: float | None = None
    called: tuple[str, str] = ("max_cost", "max_seconds")

    def __post_init__(self) -> None:
        """Raises InputError for what limits nothing, as NaN would."""
        for called, limit in zip(self.called, (self.cost, self.seconds), strict=True):
            if limit is not None and not 0 <= limit < math.inf:
                raise InputError(
                    f"{limit} is no limit", where=called, expected="a number from 0 up"
                )

    def check(self, todo: Plan) -> None:
        """Raises LimitError when the upper end of an estimate lies above its limit.

        Raises InputError for a limit on the cost of a project without a price.
        """
        cost = todo.cost(todo.wall)
        for_cost, for_time = self.called
        if self.cost is not None and cost is None:
            raise InputError(
                "there is no price to reckon with",
                where=for_cost,
                remedy="say under `price` in koinize.yaml what an hour of this machine costs",
            )
        refused = []
        if self.cost is not None and cost is not None and cost.high > self.cost:
            currency = todo.price["currency"]
            interval = f"{amount(cost.low)} to {amount(cost.high)}"
            said = f"{amount(cost.value)} {currency} ({interval})"
            refused.append(f"may cost {said}, above {for_cost} {amount(self.cost)}")
        if self.seconds is not None and todo.wall.high > self.seconds:
            interval = f"{duration(todo.wall.low)} to {duration(todo.wall.high)}"
            said = f"{duration(todo.wall.value)} ({interval})"
            refused.append(f"may take {said}, above {for_time} {duration(self.seconds)}")
        if refused:
            steps = (
                "1 missing step" if len(todo.missing) == 1 else f"{len(todo.missing)} missing steps"
            )
            raise LimitError(
                f"not started: {steps} {' and '.join(refused)}", remedy="raise the limit or do less"
            )
