"""The intervals that a ledger's lines tell of: starts and ends paired, on each run's own clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from koinize.ledger.interval import Interval, moment, unix
from koinize.ledger.lines import MARGINS


@dataclass(frozen=True)
class History:
    """All intervals, and of each run with a clock of its own the Unix time at which that began."""

    intervals: list[Interval]
    origins: dict[str, Decimal]


def history(records: Iterable[Mapping[str, Any]]) -> History:
    """Pair the lines, in the order in which intervals were opened."""
    starts: dict[str, Mapping[str, Any]] = {}
    ends: dict[str, Mapping[str, Any]] = {}
    for record in (one for one in records if one["event"] != MARGINS):
        (starts if record["event"] == "start" else ends)[record["interval"]] = record
    origins: dict[str, Decimal] = {}
    for start in starts.values():
        if start.get("at") is not None:
            origins.setdefault(start["run"], _unix(start) - Decimal(start["at"]))
    return History(
        [
            _interval(start, ends.get(name, {}), origins.get(start["run"]))
            for name, start in starts.items()
        ],
        origins,
    )


def _unix(record: Mapping[str, Any]) -> Decimal:
    return unix(datetime.fromisoformat(record["utc"]))


def _interval(start: Mapping[str, Any], end: Mapping[str, Any], origin: Decimal | None) -> Interval:
    seconds = Decimal(end.get("seconds", "0"))
    started = datetime.fromisoformat(start["utc"])
    if origin is not None and end.get("at") is not None:
        started = moment(origin + Decimal(end["at"]) - seconds)
    elif origin is not None and start.get("at") is not None:
        started = moment(origin + Decimal(start["at"]))
    return Interval(
        id=start["interval"],
        run=start["run"],
        step=start["step"],
        kind=start["kind"],
        artifact=start["artifact"],
        started=started,
        seconds=seconds,
        share=Decimal(start["share"]),
        device=start["device"],
        status=end.get("status", "open"),
        tokens=end.get("tokens", 0),
        units=end.get("units", 0),
        error=end.get("error", ""),
        price=start["price"],
        energy=end.get("energy", {}),
        why=start.get("why", ""),
        fields=start.get("address", {}),
        sort=start.get("sort", ""),
        group=start.get("group", ""),
        lost=Decimal(end["lost"]) if "lost" in end else None,
    )
