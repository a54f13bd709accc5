"""A file of JSON lines, each with the digest of the line before: the ledger's paper."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from filelock import FileLock

from koinize.digest import digest
from koinize.errors import KoinizeError
from koinize.files import NotRegularError, open_regular, parse_json, read_bytes
from koinize.store.durable import naming, own_folder, refuse_link

GENESIS = "0" * 64
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """Where a chain ends: the number of its records and the digest of the last one.

    Noted elsewhere, it shows later that nothing was cut off before it.
    """

    records: int
    digest: str


@dataclass(frozen=True)
class Setback:
    """The wall clock said less in this line than in the line before it, by so many seconds."""

    line: int
    seconds: Decimal


@dataclass(frozen=True)
class _Tail:
    """The end of the file after a whole line: its size there, the lines, the last one's digest and
    its time.
    """

    size: int
    records: int
    digest: str
    utc: str


class Chain:
    """The records in the file at `path`. A line is appended and flushed, never changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail: _Tail | None = None

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record, the digests checked. Raises KoinizeError where the chain is broken.

        A chain says nothing of what follows it: whole lines cut off at the end leave no trace.
        """
        previous = GENESIS
        for number, line in enumerate(self._lines(), 1):
            record = _parse(line)
            body = {key: value for key, value in record.items() if key != "digest"}
            if record.get("previous") != previous or record.get("digest") != digest(body):
                raise KoinizeError(
                    "the ledger was changed: this line does not follow from the one before it",
                    where=f"{self.path}:{number}",
                    remedy="restore the file from a copy; koinize never edits a line",
                )
            previous = record["digest"]
            yield record

    def head(self) -> Head:
        """Check every line. Raises KoinizeError where the chain is broken."""
        count, last = 0, GENESIS
        for record in self.records():
            count, last = count + 1, record["digest"]
        return Head(count, last)

    def setbacks(self) -> list[Setback]:
        """Where the wall clock went backwards from one line to the next."""
        found, before = [], ""
        for number, record in enumerate(self.records(), 1):
            now = str(record.get("utc"))
            if (seconds := _seconds_back(before, now)) > 0:
                found.append(Setback(number, seconds))
            before = now
        return found

    def digests(self) -> list[str]:
        """The digest of every record. Raises KoinizeError where the chain is broken."""
        return [record["digest"] for record in self.records()]

    def append(self, body: Mapping[str, object]) -> Head:
        """Write one record, stamped with the present time, and say where the chain ends then. Two
        processes wait for each other.
        """
        own_folder(self.path.parent)
        for path in (self.path, Path(f"{self.path}.lock")):
            refuse_link(path)
        if self.path.exists():
            open_regular(self.path).close()  # into a pipe nothing is written
        lock = FileLock(f"{self.path}.lock")
        with lock, naming(self.path), self.path.open("ab") as file:
            tail = self._end(file.tell())
            file.truncate(tail.size)  # a torn last line is no record
            utc = datetime.now(UTC).isoformat(timespec="milliseconds")
            if (seconds := _seconds_back(tail.utc, utc)) > 0:
                LOG.warning(
                    "the clock went back by %s s; durations do not follow it, dates do", seconds
                )
            event, interval, *rest = body.items()
            record = {**dict([event, interval]), "utc": utc, **dict(rest), "previous": tail.digest}
            identity = digest(record)
            text = json.dumps({**record, "digest": identity}, ensure_ascii=False)
            # An error may name a file whose name is no UTF-8; in JSON the escape means the same.
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._tail = _Tail(file.tell(), tail.records + 1, identity, utc)
            return Head(self._tail.records, identity)

    def _lines(self) -> list[bytes]:
        try:
            content = read_bytes(self.path)
        except FileNotFoundError:
            return []
        except NotRegularError as error:
            raise KoinizeError(
                f"cannot be read: {error.strerror}",
                where=str(self.path),
                remedy="restore the file from a copy",
            ) from error
        return content.split(b"\n")[:-1]  # what follows the last newline was never finished

    def _end(self, size: int) -> _Tail:
        """Where the last whole line ends; read again when the file has changed."""
        if self._tail is None or self._tail.size != size:
            lines = self._lines()
            last = _parse(lines[-1]) if lines else {"digest": GENESIS}
            length = sum(len(line) + 1 for line in lines)
            ended = str(last.get("digest", "")), str(last.get("utc", ""))
            self._tail = _Tail(length, len(lines), *ended)
        return self._tail


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _seconds_back(before: str, now: str) -> Decimal:
    """How many seconds `now` lies before `before`, both in ISO 8601; 0 or less when it does not."""
    try:
        delta = datetime.fromisoformat(before) - datetime.fromisoformat(now)
    except (ValueError, TypeError):  # no line before it, or one that the reader will refuse
        return Decimal(0)
    return Decimal(round(delta.total_seconds() * 1000)) / 1000
