"""The record of every attempt to replace a release: each spends of that release's budget of error.

`.koinize/releases/TASK/attempts.json` only grows; it is replaced in one rename under the project's
lock and carries its own digest. What counts is the adapter in use, not the channel or the version
that holds it: whoever tries candidates on staging has seen how they do on the test rows.
Decision 007 has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from koinize.errors import KoinizeError
from koinize.gate import budget_after, level_of
from koinize.release.archive import Version
from koinize.store.record import read_record, write_record
from koinize.store.typed import typed

FORMAT = 1


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
    """What the file says."""

    attempts: list[Attempt]


class Attempts:
    """The attempts of one task, in the file at `path`; `known`: so many are there for certain."""

    def __init__(self, path: Path, known: int = 0) -> None:
        self.path, self.known = path, known

    def all(self) -> tuple[Attempt, ...]:
        """Every attempt, the oldest first. Raises KoinizeError when the file was changed."""
        empty: dict[str, Any] = {"format": FORMAT, "attempts": []}
        record = read_record(self.path) if self.path.exists() else empty
        remedy = "restore the file from a copy: it says at which level candidates are tested"
        if record is not None and record.get("format") == FORMAT:
            found = typed(Recorded, record, where=str(self.path), remedy=remedy)["attempts"]
            if len(found) >= self.known:
                return tuple(found)
        raise KoinizeError(
            "the record of attempts cannot be read, has changed or lacks some",
            where=str(self.path),
            remedy=remedy,
        )

    def trial(self, identity: str, reference: str) -> Trial:
        """Which test this would be: a comparison that was made before stays what it was."""
        found = [one for one in self.all() if one.reference == reference]
        before = [one.trial for one in found if one.identity == identity]
        number = before[0] if before else len(found) + 1
        return Trial(number, level_of(number), level_of(max(len(found), number) + 1))

    def add(self, attempt: Attempt) -> int:
        """Append it, unless it is there already. Returns how many there are."""
        listed: Sequence[Attempt] = self.all()
        if all(one.identity != attempt.identity for one in listed):
            listed = (*listed, attempt)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            attempts = [asdict(one) for one in listed]
            write_record(self.path, {"format": FORMAT, "attempts": attempts})
        return len(listed)
