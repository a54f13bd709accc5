"""Artifacts in folders of this machine: one rename commits each."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from koinize.errors import KoinizeError
from koinize.files import NotRegularError, parse_json, read_bytes
from koinize.store.durable import own_folder, put_in_place, remove, write_atomically
from koinize.store.home import Home
from koinize.store.manifest import MANIFEST, broken
from koinize.store.place import Names
from koinize.store.typed import typed

logger = logging.getLogger(__name__)

IDENTITY = re.compile(r"[0-9a-f]{64}")


class Folder:
    """The artifacts and names under a `.koinize` (a `Place`)."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def where(self, artifact_id: str = "") -> str:
        """The folder that holds it."""
        return str(self.home.artifacts / artifact_id)

    def ids(self) -> set[str]:
        """The names of folders that are an id; whoever leads to one put it there whole."""
        return identities(self.home.artifacts)

    def manifest(self, artifact_id: str) -> bytes | None:
        """The bytes of the file; a folder without one is broken, and so is a link."""
        folder = self.files(artifact_id)
        if not folder.exists():
            return None
        if folder.is_symlink():
            raise broken(str(folder), "it is a link to a folder elsewhere")
        try:
            return read_bytes(folder / MANIFEST)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise broken(str(folder), f"its {MANIFEST} is missing") from error
        except NotRegularError as error:
            raise broken(str(folder), f"its {MANIFEST} cannot be read") from error

    def files(self, artifact_id: str) -> Path:
        """Where it lies, and is read from."""
        return self.home.artifacts / artifact_id

    def again(self, artifact_id: str) -> bool:  # noqa: ARG002 - as every place
        """There is one copy."""
        return False

    def commit(self, folder: Path, artifact_id: str) -> None:
        """Put every byte on disk, then rename the folder; the first to do so is kept."""
        target = self.files(artifact_id)
        own_folder(target.parent)
        try:
            put_in_place(folder, target)
        except OSError:
            if not target.is_dir():
                raise  # else somebody committed the same content first

    def remove(self, artifact_id: str) -> None:
        """Move it away whole, so that whoever is killed here leaves no half of it behind.

        That is a rename alone, which also succeeds on a full disk.
        """
        moved = own_folder(self.home.temporary) / artifact_id
        remove(moved)
        with suppress(FileNotFoundError):
            self.files(artifact_id).rename(moved)
        remove(moved)

    def committed(self, artifact_id: str) -> float:
        """When its manifest was written."""
        return (self.files(artifact_id) / MANIFEST).stat().st_mtime

    def size(self, artifact_id: str) -> int:
        """The sizes of its files, summed."""
        return folder_bytes(self.files(artifact_id))

    def settle(self) -> None:
        """What is committed here needs no more."""

    def orphans(self) -> list[str]:
        """A rename leaves none."""
        return []

    def remove_orphans(self) -> None:
        """There are none."""

    def names(self) -> Names | None:
        """What the file of names says."""
        path = self.home.names
        try:
            return typed(Names, parse_json(read_bytes(path)))
        except FileNotFoundError:
            return None
        except (NotRegularError, ValueError, KoinizeError):
            logger.warning("%s cannot be read; the newest artifact of each name is taken", path)
            return None

    def rename(self, change: Callable[[Names | None], Names]) -> None:
        """Write the file again where that changes it. Whoever does holds the project's lock."""
        before = self.names()
        names = change(before)
        if names != (before or {}):
            own_folder(self.home.folder)
            write_atomically(self.home.names, json.dumps(names, indent=0, sort_keys=True))


def identities(folder: Path) -> set[str]:
    """The entries of a folder that are called by an id."""
    entries = os.scandir(folder) if folder.is_dir() else ()
    return {entry.name for entry in entries if IDENTITY.fullmatch(entry.name)}


def folder_bytes(folder: Path) -> int:
    """The sizes of all files below, summed; 0 where there is no folder.

    What disappears meanwhile, since a run may be going on, is not counted.
    """
    return sum(_bytes(path) for path in folder.rglob("*"))


def _bytes(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
