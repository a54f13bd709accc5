"""The margins of a task as the ledger has them: said before test was scored, or after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from koinize.ledger.lines import MARGINS

TEST = "test"


@dataclass(frozen=True)
class Stated:
    """The margins in points by metric as they were first recorded (UTC, ISO 8601); `beforehand`
    says whether that was before the task was scored on test.
    """

    utc: str
    margins: Mapping[str, float]
    beforehand: bool


def first_stated(records: Iterable[Mapping[str, Any]], task: str) -> Stated | None:
    """The margins of a task as they were first recorded; None where nobody did."""
    scored = False
    for line in records:
        if line["event"] == MARGINS and line["task"] == task:
            return Stated(line["utc"], line["margins"], beforehand=not scored)
        address = line.get("address") or {}
        scored |= address.get("task") == task and address.get("split") == TEST
    return None


def last_stated(records: Iterable[Mapping[str, Any]], task: str) -> Mapping[str, float] | None:
    """Those that hold now; None where nobody recorded any."""
    found = None
    for line in records:
        if line["event"] == MARGINS and line["task"] == task:
            found = line["margins"]
    return found
