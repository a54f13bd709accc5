"""Append-only records of time, machine and money. Sums are derived, never typed in.

One JSON line opens an interval when a step starts and one closes it when the step ends, so a
crash leaves an open interval that the next run closes at the last heartbeat and says so. Each line
carries the digest of the line before it: a line that was changed, dropped or moved is found.
Seconds and money are decimals; a price always comes with its unit, source and date. One process
at a time may write. `docs/ledger.md` has the format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from koinize.digest import digest
from koinize.errors import KoinizeError

GENESIS = "0" * 64
MILLISECOND = Decimal("0.001")


@dataclass(frozen=True)
class Interval:
    """One stretch of work on a share of a machine.

    `seconds` is wall time; `share` the part of the machine it held (1/2: one of two workers);
    `units` the amount of work by which durations are predicted (see `pipeline`), `tokens` the
    tokens that went through the model. `status` is done, failed, interrupted or open.
    """

    id: str
    run: str
    step: str
    kind: str
    artifact: str
    started: datetime
    seconds: Decimal
    share: Decimal
    device: str
    status: str
    tokens: int
    units: int
    error: str
    price: Mapping[str, str]

    @property
    def machine_seconds(self) -> Decimal:
        """Wall seconds times the share of the machine."""
        return self.seconds * self.share

    @property
    def cost(self) -> Decimal:
        """Machine time at the recorded price, in its currency; 0 where no price was given."""
        return self.machine_seconds * Decimal(self.price.get("per_hour", "0")) / 3600


class Ledger:
    """The ledger of one project: the file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail: tuple[int, str] | None = None  # size and digest after our own last line

    def start(
        self,
        interval: str,
        *,
        run: str,
        step: str,
        kind: str,
        artifact: str,
        device: str,
        share: str,
        price: Mapping[str, str],
    ) -> None:
        """Open an interval. `share` is a decimal; `price` is empty where none is known."""
        self._append(
            {
                "event": "start",
                "interval": interval,
                "utc": _now(),
                "run": run,
                "step": step,
                "kind": kind,
                "artifact": artifact,
                "device": device,
                "share": share,
                "price": price,
            }
        )

    def end(
        self,
        interval: str,
        *,
        status: str,
        seconds: float | Decimal,
        tokens: int = 0,
        units: int = 0,
        error: str = "",
    ) -> None:
        """Close an interval with its outcome and its wall seconds (kept to the millisecond)."""
        self._append(
            {
                "event": "end",
                "interval": interval,
                "utc": _now(),
                "status": status,
                "seconds": str(Decimal(seconds).quantize(MILLISECOND)),
                "tokens": tokens,
                "units": units,
                "error": error,
            }
        )

    def close_abandoned(self, heartbeat: float | None) -> list[Interval]:
        """Close what a killed run left open, as interrupted at the last heartbeat (Unix time)."""
        closed = []
        for interval in self.intervals():
            if interval.status == "open":
                started = interval.started.timestamp()
                # A heartbeat from before the step began says nothing about it.
                seconds = max(0.0, (started if heartbeat is None else heartbeat) - started)
                error = "the run was killed; closed at its last heartbeat"
                self.end(interval.id, status="interrupted", seconds=seconds, error=error)
                closed.append(interval)
        return closed

    def intervals(self) -> list[Interval]:
        """Every interval, in the order in which they were opened."""
        starts: dict[str, Mapping[str, Any]] = {}
        ends: dict[str, Mapping[str, Any]] = {}
        for record in self.records():
            (starts if record["event"] == "start" else ends)[record["interval"]] = record
        return [_interval(start, ends.get(name, {})) for name, start in starts.items()]

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record, the chain of digests checked. Raises KoinizeError where it is broken.

        A chain says nothing of what follows it: whole lines cut off at the end leave no trace.
        """
        previous = GENESIS
        for number, line in enumerate(self._lines(), 1):
            record = _parse(line)
            body = {key: value for key, value in record.items() if key != "digest"}
            if record.get("previous") != previous or record.get("digest") != digest(body):
                raise KoinizeError(
                    "the ledger was changed: this line does not follow from the one before it",
                    where=f"{self.path}:{number}",
                    remedy="restore the file from a copy; koinize never edits a line",
                )
            previous = record["digest"]
            yield record

    def _lines(self) -> list[bytes]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return content.split(b"\n")[:-1]  # what follows the last newline was never finished

    def _append(self, body: Mapping[str, object]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            size, previous = self._end(file.tell())
            file.truncate(size)  # a torn last line is no record
            record = {**body, "previous": previous}
            identity = digest(record)
            text = json.dumps({**record, "digest": identity}, ensure_ascii=False)
            # An error may name a file whose name is no UTF-8; in JSON the escape means the same.
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._tail = file.tell(), identity

    def _end(self, size: int) -> tuple[int, str]:
        """Where the last whole line ends, and its digest; read again when the file has changed."""
        if self._tail is None or self._tail[0] != size:
            lines = self._lines()
            last = str(_parse(lines[-1]).get("digest", "")) if lines else GENESIS
            self._tail = sum(len(line) + 1 for line in lines), last
        return self._tail


def total(intervals: Iterable[Interval]) -> tuple[Decimal, Decimal]:
    """Machine seconds and cost of these intervals."""
    chosen = list(intervals)
    seconds = sum((interval.machine_seconds for interval in chosen), Decimal(0))
    return seconds, sum((interval.cost for interval in chosen), Decimal(0))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _interval(start: Mapping[str, Any], end: Mapping[str, Any]) -> Interval:
    return Interval(
        id=start["interval"],
        run=start["run"],
        step=start["step"],
        kind=start["kind"],
        artifact=start["artifact"],
        started=datetime.fromisoformat(start["utc"]),
        seconds=Decimal(end.get("seconds", "0")),
        share=Decimal(start["share"]),
        device=start["device"],
        status=end.get("status", "open"),
        tokens=end.get("tokens", 0),
        units=end.get("units", 0),
        error=end.get("error", ""),
        price=start["price"],
    )
