"""`--max-cost` and `--max-time`: what they read, and what they refuse."""

from __future__ import annotations

import math

import pytest

from koinize.cli.limits import read_cost, read_limits, read_time
from koinize.errors import InputError, LimitError
from koinize.pipeline.estimate import Estimate
from koinize.pipeline.limits import Limits
from koinize.pipeline.plan import Missing, Plan
from tests.pipeline.steps import step_named

PRICE = {"per_hour": "3.60", "currency": "EUR", "source": "a list", "date": "2026-01-01"}


def planned(wall: Estimate, price: dict[str, str], steps: int = 2) -> Plan:
    step = step_named("train/mood/de")
    return Plan(
        missing=(Missing(step, "never done", 1.0),) * steps,
        total=9,
        wall=wall,
        machine=wall,
        price=price,
        guessed=(),
        kinds=("train",),
        comparison=None,
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5400", 5400),
        ("90min", 5400),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1h30min", 5400),
        ("1h 30min", 5400),
        ("1.5h", 5400),
        ("2h", 7200),
        ("45s", 45),
        ("0", 0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert read_time(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "1d", "2h30", "h", "1e3", "inf", "1h,30m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_time(text)
    assert str(caught.value) == (
        f"--max-time '{text}' is no time; expected such as 5400, 90min, 1h30m or 2h"
    )


@pytest.mark.parametrize(("text", "cost"), [("0.50", 0.5), ("12", 12), ("0", 0)])
def test_amounts(text: str, cost: float) -> None:
    assert read_cost(text) == cost


@pytest.mark.parametrize("text", ["", "much", "-1", "nan", "inf", "0,50"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_cost(text)
    assert str(caught.value) == f"--max-cost '{text}' is no amount; expected such as 0.50"


def test_it_is_the_upper_end_that_counts() -> None:
    # 600 to 2400 s at 3.60 an hour are 0.60 to 2.40.
    todo = planned(Estimate(1200.0, 600.0, 2400.0), PRICE)
    Limits(cost=2.4, seconds=2400).check(todo)
    with pytest.raises(LimitError) as caught:
        read_limits("2.39", None).check(todo)
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "not started: 2 missing steps may cost 1.20 EUR (0.6000 to 2.40), above --max-cost 2.39; "
        "raise the limit or do less"
    )


def test_both_limits_are_named() -> None:
    todo = planned(Estimate(1200.0, 600.0, 2400.0), PRICE, steps=1)
    with pytest.raises(LimitError) as caught:
        read_limits("0.5", "30min").check(todo)
    assert str(caught.value) == (
        "not started: 1 missing step may cost 1.20 EUR (0.6000 to 2.40), above --max-cost 0.5000 "
        "and may take 20 min 00 s (10 min 00 s to 40 min 00 s), above --max-time 30 min 00 s; "
        "raise the limit or do less"
    )


def test_a_cost_needs_a_price() -> None:
    with pytest.raises(InputError) as caught:
        read_limits("1", None).check(planned(Estimate(1.0, 1.0, 1.0), {}))
    assert str(caught.value) == (
        "--max-cost there is no price to reckon with; say under `price` in koinize.yaml what an "
        "hour of this machine costs"
    )


@pytest.mark.parametrize("limit", [math.nan, math.inf, -1.0])
def test_what_would_limit_nothing_is_refused(limit: float) -> None:
    with pytest.raises(InputError, match=f"max_cost {limit} is no limit; expected a number from 0"):
        Limits(cost=limit)
    with pytest.raises(InputError, match=f"max_seconds {limit} is no limit"):
        Limits(seconds=limit)


def test_nothing_to_do_is_within_every_limit() -> None:
    Limits(cost=0.0, seconds=0.0).check(planned(Estimate(0.0, 0.0, 0.0), PRICE, steps=0))
