"""The ledger in sums for people, and in rows for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import IO, Any

from koinize.ledger.interval import (
    IDLE,
    Interval,
    by_run,
    covered,
    elapsed,
    idle,
    joules,
    money,
    total,
    unused,
)
from koinize.shown import csv_cell

NANO = Decimal("1e-9")

COLUMNS = (
    "interval", "run", "step", "kind", "status", "artifact", "device", "started_utc",
    "seconds", "share", "machine_seconds", "tokens", "units",
    "price_per_hour", "currency", "price_source", "price_date", "cost",
    "joules", "energy_source", "group", "why", "error", "lost_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Sum:
    """What some intervals took together.

    `wall_seconds` is the time during which at least one of them ran. `cost` is by currency;
    `joules` is None where no energy was read.
    """

    intervals: int
    wall_seconds: Decimal
    machine_seconds: Decimal
    cost: dict[str, Decimal]
    joules: Decimal | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; decimals as text."""
        return {
            "intervals": self.intervals,
            "wall_seconds": plain(self.wall_seconds),
            "machine_seconds": plain(self.machine_seconds),
            "cost": {currency: plain(amount) for currency, amount in self.cost.items()},
            "joules": None if self.joules is None else plain(self.joules),
        }


@dataclass(frozen=True)
class RunSum:
    """One run: its intervals' sum, with the wall time from its start to its end, and what is idle.

    Where a run recorded no idle time (one of an older koinize, or one that goes on) it is derived,
    and the sum's machine time does not contain it.
    """

    run: str
    started: str
    sum: Sum
    idle_seconds: Decimal

    def to_dict(self) -> dict[str, Any]:
        """For JSON; decimals as text."""
        idle_time = {"idle_machine_seconds": plain(self.idle_seconds)}
        return {"run": self.run, "started_utc": self.started, **self.sum.to_dict(), **idle_time}


def plain(number: Decimal) -> str:
    """A decimal without exponent and idle zeros, to the billionth."""
    return f"{number.quantize(NANO).normalize():f}"


def sum_of(intervals: Sequence[Interval], wall: Decimal | None = None) -> Sum:
    """Both clocks, money and energy of these."""
    return Sum(
        intervals=len(intervals),
        wall_seconds=covered(intervals) if wall is None else wall,
        machine_seconds=total(intervals)[0],
        cost=money(intervals),
        joules=joules(intervals),
    )


def everything(intervals: Sequence[Interval]) -> Sum:
    """All of them; the wall time is that of one run after the other."""
    walls = (elapsed(work) for work in by_run(intervals).values())
    return sum_of(intervals, sum(walls, Decimal(0)))


def kinds(intervals: Iterable[Interval]) -> dict[str, Sum]:
    """Kind -> sum, in the order of first appearance; what is not done stands apart. The wall time
    of what is idle is that during which nothing ran.
    """
    every, groups = list(intervals), dict[str, list[Interval]]()
    for one in every:
        name = one.kind if one.status == "done" else f"{one.kind}, {one.status}"
        groups.setdefault(name, []).append(one)
    waited = sum(map(unused, by_run(every).values()), Decimal(0))
    return {name: sum_of(group, waited if name == IDLE else None) for name, group in groups.items()}


def runs(intervals: Iterable[Interval]) -> list[RunSum]:
    """Every run, the oldest first."""
    return [
        RunSum(
            run=name,
            started=min(one.started for one in work).isoformat(timespec="seconds"),
            sum=sum_of(work, elapsed(work)),
            idle_seconds=idle(work),
        )
        for name, work in by_run(intervals).items()
    ]


def write_csv(intervals: Iterable[Interval], file: IO[str]) -> None:
    """One row per interval under a head of `COLUMNS`; decimals as text, what is unknown empty."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in intervals:
        writer.writerow(csv_cell(str(value)) for value in _cells(one))


def _cells(one: Interval) -> list[object]:
    return [
        one.id, one.run, one.step, one.kind, one.status, one.artifact, one.device,
        one.started.isoformat(timespec="milliseconds"),
        plain(one.seconds), plain(one.share), plain(one.machine_seconds),
        one.tokens, one.units,
        *(one.price.get(key, "") for key in ("per_hour", "currency", "source", "date")),
        plain(one.cost) if one.price else "",
        one.energy.get("joules", ""), one.energy.get("source", ""),
        one.group, one.why, one.error, "" if one.lost is None else plain(one.lost),
    ]  # fmt: skip
