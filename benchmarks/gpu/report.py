"""The Markdown file that grows with every figure, and the clock that each part runs against."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


class OutOfTime(BaseException):
    """A part's time is over. No Exception, so that whoever catches those lets it through."""


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    value: str
    unit: str
    how: str


@dataclass
class Part:
    """One part of the run: its figures, what went wrong, and until when it may take."""

    name: str
    title: str
    report: Report
    deadline: float
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, what: str, value: float, unit: str, how: str = "") -> None:
        """Keep, print and write one figure."""
        said = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
        self.rows.append(Row(what, said, unit, how))
        print(f"  {what}: {said} {unit}", flush=True)
        self.report.write()

    def note(self, text: str) -> None:
        """Keep, print and write one sentence."""
        self.notes.append(text)
        print(f"  {text}", flush=True)
        self.report.write()

    def left(self) -> float:
        """Seconds until this part's time is over."""
        return self.deadline - time.monotonic()

    def attempt(self, what: str, seconds: float, work: Callable[[], None]) -> bool:
        """Do this if so many seconds are left, and go on if it fails; whether it was done."""
        if self.left() < seconds:
            self.note(f"Left out for want of time: {what} ({self.left():.0f} s were left).")
            return False
        try:
            work()
        except Exception as error:  # noqa: BLE001  # the next figure may still be had
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            self.note(f"FAILED: {what}: {type(error).__name__}: {lines[0][:300]}")
            return False
        return True


class Report:
    """All parts, and the file that they go into."""

    def __init__(self, path: Path, head: list[str]) -> None:
        self.path, self.head = path, head
        self.parts: list[Part] = []
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self) -> None:
        """The file as it stands."""
        lines = ["# On a GPU", "", *(f"- {line}" for line in self.head), ""]
        for part in self.parts:
            lines += _section(part)
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def summary(self) -> str:
        """The figures alone, for whoever looks at the terminal."""
        lines = []
        for part in self.parts:
            lines.append(f"{part.title} ({part.seconds:.0f} s)")
            lines += [f"  {row.what:<64.64} {row.value:>10} {row.unit}" for row in part.rows]
            lines += [f"  ! {note}" for note in part.notes if note.startswith("FAILED")]
        return "\n".join(lines)


def _section(part: Part) -> list[str]:
    lines = [f"## {part.title}", ""]
    if part.rows:
        lines += ["| figure | value | unit | how |", "|---|---|---|---|"]
        lines += [f"| {row.what} | {row.value} | {row.unit} | {row.how} |" for row in part.rows]
        lines.append("")
    lines += [f"- {note}" for note in part.notes]
    return [*lines, f"- It took {part.seconds:.0f} s.", ""]
