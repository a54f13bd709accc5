"""Where the ledger's chain ended, noted beside it: a chain alone does not show what was cut off it.

`.koinize/heads.jsonl` has a line for the end of every run and of every look at a candidate. Each of
them has to be on the chain, at its place. Whoever can write all files of a project can rewrite this
one too; beyond their reach is what was noted elsewhere (`koinize ledger verify --head HEAD`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from koinize.errors import KoinizeError
from koinize.files import parse_json, read_bytes
from koinize.ledger.chain import Head
from koinize.store.durable import refuse_link, write_atomically
from koinize.store.typed import Identity, typed

HEADS = "heads.jsonl"


class Noted(TypedDict):
    """A line: the chain had so many records, and the last one this digest."""

    records: Annotated[int, Field(ge=0, lt=2**53)]
    digest: Identity


class Heads:
    """The heads of one ledger, in the file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, head: Head) -> None:
        """Add one; whoever writes the ledger's lines does. Raises OSError."""
        self._write([*self.all(), head])

    def keep(self, digests: list[str]) -> None:
        """Drop those that are not on the chain whose records have these digests."""
        heads = self.all()
        lost = not_on(heads, digests)
        self._write([one for one in heads if one not in lost])

    def _write(self, heads: list[Head]) -> None:
        refuse_link(self.path)
        lines = [{"records": one.records, "digest": one.digest} for one in heads]
        write_atomically(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))

    def all(self) -> list[Head]:
        """Every head, the oldest first. Raises KoinizeError for a line that is none."""
        return list(self._read())

    def _read(self) -> Iterator[Head]:
        lines = read_bytes(self.path).splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            where = f"{self.path}:{number}"
            try:
                found = typed(Noted, parse_json(line), where=where)
            except ValueError as error:
                raise KoinizeError("this line cannot be read", where=where) from error
            yield Head(found["records"], found["digest"])


def not_on(heads: Iterable[Head], digests: list[str]) -> list[Head]:
    """Those heads that are not on a chain whose records have these digests, in order."""
    return [
        head
        for head in heads
        if head.records
        and (head.records > len(digests) or digests[head.records - 1] != head.digest)
    ]
