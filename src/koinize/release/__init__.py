"""Releases: what a team put into use, why it was allowed, and the way back.

`archive` keeps immutable releases and the channels that point to them, `candidate` gathers what a
finished run offers, `scoring` lets the release in use answer the test rows of today, `pairs` are
the rows that both answered, `judge` compares the two, `attempts` keeps count of who tried,
`promotion` switches. `changes` tells two releases apart, `evidence` says what they were worth,
`garbage` finds what nobody refers to, `doctor` looks for what is broken.
"""

from __future__ import annotations

from koinize.release.archive import CHANNELS, Event, Release, Releases, version_of
from koinize.release.attempts import Attempt, Attempts
from koinize.release.changes import Changes, changes
from koinize.release.doctor import Check, examine
from koinize.release.evidence import released
from koinize.release.garbage import Garbage, collect, garbage
from koinize.release.promotion import (
    Promotion,
    Serve,
    anchor,
    not_served,
    promote,
    rollback,
    task_of,
)

__all__ = [
    "CHANNELS",
    "Attempt",
    "Attempts",
    "Changes",
    "Check",
    "Event",
    "Garbage",
    "Promotion",
    "Release",
    "Releases",
    "Serve",
    "anchor",
    "changes",
    "collect",
    "examine",
    "garbage",
    "not_served",
    "promote",
    "released",
    "rollback",
    "task_of",
    "version_of",
]
