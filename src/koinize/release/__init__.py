"""Releases: what a team put into use, why it was allowed, and the way back.

`archive` keeps immutable releases and the channels that point to them, `candidate` gathers what a
finished run offers, `judge` compares it with the release in use, `promotion` switches. `changes`
tells two releases apart, `evidence` says
what they were worth, `garbage` finds what nobody refers to, `doctor` looks for what is broken.
"""

from __future__ import annotations

from koinize.release.archive import CHANNELS, Event, Release, Releases, version_of
from koinize.release.changes import Changes, changes
from koinize.release.doctor import Check, examine
from koinize.release.evidence import released
from koinize.release.garbage import Garbage, collect, garbage
from koinize.release.promotion import Promotion, promote, rollback, task_of

__all__ = [
    "CHANNELS",
    "Changes",
    "Check",
    "Event",
    "Garbage",
    "Promotion",
    "Release",
    "Releases",
    "changes",
    "collect",
    "examine",
    "garbage",
    "promote",
    "released",
    "rollback",
    "task_of",
    "version_of",
]
