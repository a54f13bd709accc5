"""Copies on this machine of what a bucket has: manifests and files. Any of them may go any time."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from koinize.store.durable import refuse_link, remove
from koinize.store.folder import folder_bytes
from koinize.store.objects import Found
from koinize.store.record import read_record, write_record
from koinize.store.typed import fitting

IN_USE_SECONDS = 3600  # a copy that was asked for so recently may be read right now


@dataclass(frozen=True)
class _Remembered:
    """An object as it was read last."""

    content: str
    tag: dict[str, str]


class Cache:
    """The copies in a folder; their files together stay under `limit` bytes where that can be."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._unweighed = math.inf  # bytes that were kept since somebody looked at all of them

    def remember(self, artifact_id: str, found: Found) -> None:
        """Keep what the object of a manifest says."""
        path = self._memory(artifact_id)
        _made(path.parent)
        content = found.content.decode("utf-8", "replace")
        write_record(path, {"content": content, "tag": found.tag}, durably=False)

    def remembered(self, artifact_id: str) -> Found | None:
        """What it said when it was read last."""
        record = fitting(_Remembered, read_record(self._memory(artifact_id)))
        return Found(record.content.encode(), record.tag) if record else None

    def copy(self, artifact_id: str, attempt: str) -> Path | None:
        """The folder with the files of this attempt, which is in use now; None without one."""
        copy = self._copies(artifact_id) / attempt
        try:
            os.utime(copy)
        except FileNotFoundError:
            return None
        return copy

    def keep(self, folder: Path, artifact_id: str, attempt: str) -> Path:
        """Let a folder become the copy of this attempt, and make room for it."""
        copy = _made(self._copies(artifact_id)) / attempt
        self._unweighed += folder_bytes(folder)
        with suppress(OSError):  # another process has brought the same meanwhile
            folder.rename(copy)
        self.copy(artifact_id, attempt)
        if self._unweighed > self.limit / 100:
            self._make_room()
            self._unweighed = 0
        return copy

    def drop(self, artifact_id: str) -> None:
        """Remove every copy of its files."""
        remove(self._copies(artifact_id))

    def forget(self, artifact_id: str) -> None:
        """Remove all that is known of it."""
        self._memory(artifact_id).unlink(missing_ok=True)
        self.drop(artifact_id)

    def _make_room(self) -> None:
        """Remove the copies that were not used for longest, as far as they are over the limit."""
        total = 0
        for used, copy in sorted(map(_used, self.folder.glob("files/*/*")), reverse=True):
            total += folder_bytes(copy)
            if total > self.limit and time.time() - used > IN_USE_SECONDS:
                remove(copy)

    def _memory(self, artifact_id: str) -> Path:
        return self.folder / "manifests" / f"{artifact_id}.json"

    def _copies(self, artifact_id: str) -> Path:
        return self.folder / "files" / artifact_id


def _made(folder: Path) -> Path:
    """A folder of the cache, which need not be on disk when this returns."""
    refuse_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _used(copy: Path) -> tuple[float, Path]:
    """When a copy was asked for last; long ago where somebody has removed it meanwhile."""
    try:
        return copy.stat().st_mtime, copy
    except FileNotFoundError:
        return 0.0, copy
