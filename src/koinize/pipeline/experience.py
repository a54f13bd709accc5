"""What a project's ledger teaches about the time that work takes, remembered between commands.

The ledger is read, and its chain of digests checked, only when the file has changed, so that a plan
over tens of thousands of finished steps takes milliseconds. Losing the memory costs time and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from koinize.ledger import LOAD, Interval, Ledger
from koinize.pipeline.graph import COMB
from koinize.record import read_record, write_record

FORMAT = 1


@dataclass(frozen=True)
class Tally:
    """Sums over finished pieces of work of one sort, each of s seconds and u units.

    `count` of them, the sums of s and of u, of u^2, and of s^2 / u: all that a rate, its spread and
    its uncertainty need (see `estimate`), whatever their number.
    """

    count: int = 0
    seconds: float = 0.0
    units: float = 0.0
    squared_units: float = 0.0
    squared_seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.count + other.count,
            self.seconds + other.seconds,
            self.units + other.units,
            self.squared_units + other.squared_units,
            self.squared_seconds + other.squared_seconds,
        )

    @classmethod
    def of(cls, seconds: float, units: int) -> Tally:
        """One piece of work; where units do not apply, it is one unit."""
        amount = max(1, units)
        return cls(1, seconds, amount, amount**2, seconds**2 / amount)


@dataclass(frozen=True)
class Experience:
    """`tallies` by (device, kind, task), the task empty where there is none.

    `combined` has the last finished work on every step of COMB by the step's name; `unfinished` is
    the number of intervals that nobody closed.
    """

    tallies: Mapping[tuple[str, str, str], Tally] = field(default_factory=dict)
    combined: Mapping[str, Tally] = field(default_factory=dict)
    unfinished: int = 0


def learn(intervals: Iterable[Interval]) -> Experience:
    """Sum up a ledger. What failed or was interrupted teaches nothing about a finished step."""
    tallies: dict[tuple[str, str, str], Tally] = {}
    combined: dict[str, Tally] = {}
    unfinished = 0
    for one in intervals:
        unfinished += one.status == "open"
        if one.status != "done":
            continue
        new = Tally.of(float(one.seconds), one.units)
        sort = one.device, one.kind, _task(one)
        tallies[sort] = tallies.get(sort, Tally()) + new
        if one.step.endswith("/comb") or f"/{COMB}/" in one.step:
            combined[one.step] = new
    return Experience(tallies, combined, unfinished)


def recall(ledger: Ledger, memory: Path) -> Experience:
    """The experience in this ledger, from memory while the file is as it was.

    Raises KoinizeError when a line of the ledger was changed.
    """
    stamp = _stamp(ledger.path)
    if stamp is None:
        return Experience()
    known = read_record(memory) or {}
    if known.get("stamp") == [FORMAT, *stamp]:
        return _from_plain(known)
    experience = learn(ledger.intervals())
    with suppress(OSError):  # a full disk, or a project that may only be read
        write_record(memory, {"stamp": [FORMAT, *stamp], **_to_plain(experience)})
    return experience


def _task(interval: Interval) -> str:
    """`topic` of `evaluate/topic/...`; loading a model is the same for every task."""
    parts = interval.step.split("/")
    return parts[1] if len(parts) > 1 and interval.kind != LOAD else ""


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _to_plain(experience: Experience) -> dict[str, Any]:
    return {
        "tallies": [[*sort, asdict(tally)] for sort, tally in experience.tallies.items()],
        "combined": {step: asdict(tally) for step, tally in experience.combined.items()},
        "unfinished": experience.unfinished,
    }


def _from_plain(known: Mapping[str, Any]) -> Experience:
    return Experience(
        {(device, kind, task): Tally(**sums) for device, kind, task, sums in known["tallies"]},
        {step: Tally(**sums) for step, sums in known["combined"].items()},
        known["unfinished"],
    )
