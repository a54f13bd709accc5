"""The last sign of life of a run, kept beside the ledger in a file of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from koinize.files import read_bytes
from koinize.store.durable import write_briefly
from koinize.store.typed import MOST_SECONDS

LARGEST = 1000  # bytes: a run's name and a number


@dataclass(frozen=True)
class Heartbeat:
    """The last sign of life of a run: `at` seconds into it, by its monotonic clock.

    `unix` is when that was by the wall clock: all that is known of work outside that run.
    """

    unix: float
    run: str = ""
    at: Decimal | None = None

    @classmethod
    def read(cls, path: Path) -> Heartbeat | None:
        """What the file says; None without one."""
        try:
            unix, words = path.stat().st_mtime, read_bytes(path, LARGEST).decode().split()
            if len(words) != 2:
                return cls(unix)
            at = Decimal(words[1])
            return cls(unix, words[0], at) if 0 <= at <= MOST_SECONDS else cls(unix)
        except (OSError, ArithmeticError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Leave it in the file. On a full disk there is no sign of life, and work goes on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            write_briefly(path, f"{self.run} {self.at}")
