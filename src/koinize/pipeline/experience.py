"""What a project's ledger teaches about the time that work takes, remembered between commands.

The ledger is read, and its chain of digests checked, only when the file has changed, so that a plan
over tens of thousands of finished steps takes milliseconds. Losing the memory costs time and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field
from operator import add
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from koinize.ledger import Interval, Ledger
from koinize.ledger.address import COMB_ROLES, Address
from koinize.store.record import read_record, write_record
from koinize.store.typed import Count, Sum, fitting

FORMAT = 3
Sort = tuple[str, str, str]
"""Device, kind and what a rate of that kind is learnt apart for (`Interval.alike`)."""


@dataclass(frozen=True)
class Tally:
    """Sums over finished pieces of work of one sort, each of s seconds and u units.

    `count` of them, the sums of s and of u, of u^2, and of s^2 / u; then the number of runs in
    which they were done, and the sums of u^2 and s^2 / u with s and u summed within each run. That
    is all that a rate, its spread and its uncertainty need (see `estimate`).
    """

    count: Count = 0
    seconds: Sum = 0.0
    units: Sum = 0.0
    squared_units: Sum = 0.0
    squared_seconds: Sum = 0.0
    runs: Count = 0
    squared_run_units: Sum = 0.0
    squared_run_seconds: Sum = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*map(add, astuple(self), astuple(other)))

    @classmethod
    def of_run(cls, work: Sequence[tuple[float, int]]) -> Tally:
        """The (seconds, units) of one run. Work to which units do not apply is one unit."""
        seconds, units = sum(s for s, _ in work), sum(u for _, u in work)
        return cls(
            count=len(work),
            seconds=seconds,
            units=units,
            squared_units=sum(u**2 for _, u in work),
            squared_seconds=sum(s**2 / u for s, u in work),
            runs=1,
            squared_run_units=units**2,
            squared_run_seconds=seconds**2 / units,
        )


@dataclass(frozen=True)
class Experience:
    """What is known of every sort of work.

    `combined` has the last finished work on every step of COMB by the step's name; `unfinished` is
    the number of intervals that nobody closed.
    """

    tallies: Mapping[Sort, Tally] = field(default_factory=dict)
    combined: Mapping[str, Tally] = field(default_factory=dict)
    unfinished: int = 0


def of_comb(step: Address) -> bool:
    """Whether this is COMB's own work: its training, or an evaluation of it."""
    return step.role == COMB_ROLES[0] or step.system.key == "COMB"


def learn(intervals: Iterable[Interval]) -> Experience:
    """Sum up a ledger. What failed or was interrupted teaches nothing about a finished step, but
    for what was saved of it: that is a part of the work that the next attempt finished.
    """
    runs: dict[tuple[Sort, str], list[tuple[float, int]]] = {}
    begun: dict[tuple[str, str], tuple[float, int]] = {}
    combined: dict[str, Tally] = {}
    unfinished = 0
    for one in intervals:
        unfinished += one.status == "open"
        seconds, units = begun.pop((one.kind, one.artifact), (0.0, 0))
        seconds, units = seconds + float(one.seconds - (one.lost or 0)), units + one.units
        if one.lost is not None:
            begun[one.kind, one.artifact] = seconds, units
        if one.status != "done":
            continue
        work = seconds, max(1, units)
        runs.setdefault(((one.device, one.kind, one.alike), one.run), []).append(work)
        if of_comb(one.address):
            combined[one.step] = Tally.of_run([work])
    tallies: dict[Sort, Tally] = {}
    for (sort, _), some in runs.items():
        tallies[sort] = tallies.get(sort, Tally()) + Tally.of_run(some)
    return Experience(tallies, combined, unfinished)


class _Memory(TypedDict):
    stamp: list[int]
    tallies: list[tuple[str, str, str, Tally]]
    combined: dict[str, Tally]
    unfinished: Count


def recall(ledger: Ledger, memory: Path) -> Experience:
    """The experience in this ledger, from memory while the file is as it was.

    Raises KoinizeError when a line of the ledger was changed.
    """
    stamp = _stamp(ledger.path)
    if stamp is None:
        return Experience()
    known = fitting(_Memory, read_record(memory))
    if known and known["stamp"] == [FORMAT, *stamp]:
        tallies = {(device, kind, sort): tally for device, kind, sort, tally in known["tallies"]}
        return Experience(tallies, known["combined"], known["unfinished"])
    experience = learn(ledger.intervals())
    with suppress(OSError):  # a full disk, or a project that may only be read
        write_record(memory, {"stamp": [FORMAT, *stamp], **_to_plain(experience)})
    return experience


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def _to_plain(experience: Experience) -> dict[str, Any]:
    return {
        "tallies": [[*sort, asdict(tally)] for sort, tally in experience.tallies.items()],
        "combined": {step: asdict(tally) for step, tally in experience.combined.items()},
        "unfinished": experience.unfinished,
    }
