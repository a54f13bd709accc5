"""Standard output and error: nothing that an input says moves a cursor or names a window."""

from __future__ import annotations

import re
import sys
from typing import IO, Any

from koinize.shown import UNSHOWABLE, escaped

COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


class Guarded:
    """A text stream that escapes what a terminal would obey, but for colours."""

    def __init__(self, stream: IO[str]) -> None:
        self.unguarded = stream
        self._colours = stream.isatty()

    def write(self, text: str) -> int:
        """Write it; returns the number of characters that were given."""
        if UNSHOWABLE.search(text):
            parts = COLOUR.split(text) if self._colours else [text]
            shown = [part if index % 2 else escaped(part) for index, part in enumerate(parts)]
            self.unguarded.write("".join(shown))
        else:
            self.unguarded.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is the stream's own
        return getattr(self.unguarded, name)


def unguarded(stream: IO[str]) -> IO[str]:
    """The stream behind a guard, for a bar that is drawn anew and holds nothing of an input."""
    behind: IO[str] = getattr(stream, "unguarded", stream)
    return behind


def guard() -> None:
    """Put a guard before standard output and error, for as long as the process lives."""
    sys.stdout, sys.stderr = Guarded(sys.stdout), Guarded(sys.stderr)
