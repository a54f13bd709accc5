"""Append-only records of time, machine, money and energy. Sums are derived, never typed in.

One JSON line opens an interval when work starts and one closes it when the work ends, so a crash
leaves an open interval that the next run closes at the last heartbeat and says so. Each line
carries the digest of the line before it: a line that was changed, dropped or moved is found.
Seconds, money and joules are decimals; a price always comes with its unit, source and date.
`docs/ledger.md` has the format.

What is in here: `recording`, the ledger itself, on `chain` (`lines` that follow from one another;
`heads` are where it once ended, `signatures` whose word that is, `stamps` since when: `tokens` as
an `authority` gives them, put in order by `der`), as `history` reads it, and `heartbeat` (when a
run was last alive); `address`, which step an interval is about; `interval`, one piece of work and
the sums over many, with `summary` for tables; `scopes`, what an update and retraining pay for;
`margins`, what a language may lose and when that was said. `prices` is the price book, `energy`
reads the meters.

Two worked paths. A step starts: `Ledger.start` appends a line with run, address, share and price;
it ends: `Ledger.end` appends the seconds by the run's own clock. A reader asks
`Ledger.intervals()`, which checks the chain, pairs starts with ends, and returns `Interval`s; what
they come to is said by `total`, `covered` and `idle`.
"""

from __future__ import annotations

from koinize.ledger.address import Address, System
from koinize.ledger.chain import Head, Setback
from koinize.ledger.heartbeat import Heartbeat
from koinize.ledger.interval import (
    AT_ONCE,
    GATE,
    IDLE,
    IN_TURN,
    LOAD,
    MILLISECOND,
    PROVISION,
    Interval,
    Saved,
    by_run,
    covered,
    elapsed,
    idle,
    joules,
    money,
    total,
    unused,
)
from koinize.ledger.margins import Stated, first_stated, last_stated
from koinize.ledger.recording import Ledger, Work

__all__ = [
    "AT_ONCE",
    "GATE",
    "IDLE",
    "IN_TURN",
    "LOAD",
    "MILLISECOND",
    "PROVISION",
    "Address",
    "Head",
    "Heartbeat",
    "Interval",
    "Ledger",
    "Saved",
    "Setback",
    "Stated",
    "System",
    "Work",
    "by_run",
    "covered",
    "elapsed",
    "first_stated",
    "idle",
    "joules",
    "last_stated",
    "money",
    "total",
    "unused",
]
