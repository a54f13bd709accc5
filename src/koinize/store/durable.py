"""Files that are written whole or not at all, and locks that end with their process."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"  # how the name of a file ends that `write_atomically` has not finished


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, gone at the end unless it was moved elsewhere.

    Its process holds a lock on it, which ends with the process however that ends: by it
    `Store.sweep` knows what nobody works on any more. (Process ids would come round again, in
    containers with every start.)
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle)
        yield folder
    finally:
        os.close(handle)
        remove(folder)


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename, fsync of the folder.

    What an earlier write of the same file left, because its process was killed, is removed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}-*{PART}"):
        with free(left) as abandoned:
            if abandoned:
                left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=PART, dir=path.parent)
    try:
        # A file name that is no UTF-8 may be part of the text; in JSON the escape means the same.
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            lock(handle)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Put a file or folder on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Whether no living process holds this file or folder; nobody can take it meanwhile."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # gone already, or not ours
        yield False
        return
    try:
        yield lock(handle)
    finally:
        os.close(handle)


def lock(handle: int) -> bool:
    """Lock an open file or folder for as long as it is open; False when it is locked elsewhere."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or a file system without locks, where nothing is ever swept
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as it can be done."""
    with suppress(OSError):
        path.unlink() if not path.is_dir() or path.is_symlink() else shutil.rmtree(path)
