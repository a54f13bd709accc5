"""The record of every attempt to replace a release: each spends of that release's budget of error.

An attempt is in the ledger, in the line that ends its look at the test rows, so nobody can take it
back without breaking the chain. `.koinize/releases/TASK/attempts.json` has what an older koinize
kept there, and what was saved from a broken ledger. What counts is the adapter in use, not the
channel or the version that holds it: whoever tries candidates on staging has seen how they do on
the test rows. Decision 007 has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from koinize.errors import KoinizeError
from koinize.files import parse_json
from koinize.gate import budget_after, level_of
from koinize.ledger import Ledger
from koinize.release.archive import Version
from koinize.store import Home
from koinize.store.durable import own_folder
from koinize.store.record import read_record, write_record
from koinize.store.typed import typed

FORMAT = 1
RESTORE = "restore the file from a copy: it says at which level candidates are tested"


@dataclass(frozen=True)
class Trial:
    """The place of a test among those against one release: the `number`-th, at `level`; whoever
    comes next has `next_level`.
    """

    number: int
    level: float
    next_level: float


@dataclass(frozen=True)
class Attempt:
    """One candidate (an adapter's id) against the release in use, which held `reference`.

    `identity` is the digest of what was compared; `p_value` the largest of all gated comparisons;
    `margins` has, by the metrics that decided, the points that a language might lose. It is empty
    where an older koinize kept none.
    """

    utc: str
    channel: str
    identity: str
    candidate: str
    incumbent: Version
    reference: str
    trial: Annotated[int, Field(ge=1, lt=10**9)]
    level: Annotated[float, Field(gt=0, lt=1)]
    p_value: Annotated[float, Field(ge=0, le=1)]
    passed: bool
    margins: Mapping[str, float] = field(default_factory=dict)

    @property
    def budget_left(self) -> float:
        """What was left of the 5 % for later candidates."""
        return budget_after(self.trial)


class Recorded(TypedDict):
    """What the file beside the releases says."""

    attempts: list[Attempt]


class Line(TypedDict):
    """What a line of the ledger says of one."""

    task: str
    attempt: Attempt


class Attempts:
    """The attempts of one task; `known`: so many are there for certain, a release says."""

    def __init__(self, home: Path, task: str, known: int = 0) -> None:
        self.task, self.known = task, known
        self.former = Home(home).releases / task / "attempts.json"
        self.ledger = Ledger(Home(home).ledger)

    def all(self) -> tuple[Attempt, ...]:
        """Every attempt, the oldest first. Raises KoinizeError where the ledger's chain is broken
        or shorter than it was, and where attempts are missing or odd.
        """
        lost = self.ledger.forgotten()
        if lost:
            raise _lacking(self.ledger.path, f"{lost[-1].records} records were in the ledger once")
        found = {one.identity: one for one in (*self._former(), *self._recorded())}
        if len(found) < self.known:
            said = f"{self.known} attempts were made, and {len(found)} are recorded"
            raise _lacking(self.ledger.path, said)
        return tuple(found.values())

    def _recorded(self) -> Iterator[Attempt]:
        for one in self.ledger.attempts():
            line = typed(Line, one, where=str(self.ledger.path), remedy=RESTORE)
            if line["task"] == self.task:
                yield line["attempt"]

    def save(self, found: Iterable[Attempt]) -> None:
        """Keep attempts whose lines the ledger loses, in the file beside the releases."""
        kept = {one.identity: one for one in (*self._former(), *found)}
        own_folder(self.former.parent)
        attempts = [asdict(one) for one in kept.values()]
        write_record(self.former, {"format": FORMAT, "attempts": attempts})

    def _former(self) -> list[Attempt]:
        """Those in that file."""
        if not self.former.exists():
            return []
        record = read_record(self.former)
        if record is None or record.get("format") != FORMAT:
            raise _lacking(self.former, "it cannot be read or has changed")
        return typed(Recorded, record, where=str(self.former), remedy=RESTORE)["attempts"]

    def trial(self, identity: str, reference: str) -> Trial:
        """Which test this would be: a comparison that was made before stays what it was."""
        found = [one for one in self.all() if one.reference == reference]
        before = [one.trial for one in found if one.identity == identity]
        number = before[0] if before else len(found) + 1
        return Trial(number, level_of(number), level_of(max(len(found), number) + 1))

    def line(self, attempt: Attempt) -> dict[str, Any]:
        """What the ledger's line says of it; nothing of a comparison that was made before."""
        if any(one.identity == attempt.identity for one in self.all()):
            return {}
        return {"task": self.task, "attempt": asdict(attempt)}


def save_attempts(home: Path, lines: Iterable[bytes]) -> int:
    """Keep the attempts that can be read in lines that the ledger loses. Returns how many."""
    found: dict[str, list[Attempt]] = {}
    for line in lines:
        with suppress(ValueError, KoinizeError):
            record = parse_json(line)
            told = typed(Line, record.get("attempt") if isinstance(record, dict) else None)
            found.setdefault(told["task"], []).append(told["attempt"])
    for task, attempts in found.items():
        Attempts(home, task).save(attempts)
    return sum(map(len, found.values()))


def _lacking(path: Path, what: str) -> KoinizeError:
    return KoinizeError(
        f"the record of attempts is not whole: {what}", where=str(path), remedy=RESTORE
    )
