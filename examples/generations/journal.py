"""What a run writes as it goes: JSON lines in one gzip file a worker, complete after every line.

Each append is a gzip member of its own, so a run that is stopped loses the line in hand at most;
a file whose last member is cut is read up to there. What stands in the files is not done again.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Journal:
    """One worker's file, and what all files of the folder held at the start."""

    def __init__(self, folder: Path, worker: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"results-{worker}.jsonl.gz"
        self.written = {identity(line) for line in read_all(folder)}
        self.waiting: list[bytes] = []

    def add(self, line: Line) -> None:
        """Keep a line until the next `flush`; one that is there already changes nothing."""
        if identity(line) not in self.written:
            self.written.add(identity(line))
            text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
            self.waiting.append(text.encode() + b"\n")

    def flush(self) -> None:
        """Append what waits as one gzip member."""
        if self.waiting:
            with self.path.open("ab") as file:
                file.write(gzip.compress(b"".join(self.waiting), 6))
        self.waiting = []

    def has(self, **what: object) -> bool:
        """Whether a line with this identity was written, now or before."""
        return identity(what) in self.written


IDENTITY = ("what", "task", "seed", "group", "name", "candidate", "split")


def identity(line: Line) -> tuple[object, ...]:
    """What a line is about; two lines of one identity say the same."""
    return tuple(line.get(key) for key in IDENTITY)


def read_all(folder: Path) -> Iterator[Line]:
    """The lines of all files of a folder, each identity once."""
    seen: set[tuple[object, ...]] = set()
    for path in sorted(folder.glob("results-*.jsonl.gz")):
        for line in _lines(path.read_bytes()):
            if identity(line) not in seen:
                seen.add(identity(line))
                yield line


def train_rows_of(folder: Path) -> set[int | None]:
    """The limits of training rows with which the files of a folder were begun; None is no limit."""
    firsts = (next(_lines(path.read_bytes()), {}) for path in folder.glob("results-*.jsonl.gz"))
    return {line.get("train_rows") for line in firsts if line.get("what") == "rows"}


def _lines(content: bytes) -> Iterator[Line]:
    """The lines of the members that are whole."""
    while content:
        member = zlib.decompressobj(wbits=31)
        try:
            text = member.decompress(content)
        except zlib.error:
            return
        if not member.eof:
            return
        content = member.unused_data
        # Not splitlines(): a generated text may hold U+2028, which JSON leaves as it is.
        yield from (json.loads(line) for line in text.split(b"\n") if line)
