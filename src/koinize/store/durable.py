"""Files and folders that appear whole or not at all, and locks that end with their process."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from koinize.errors import InputError

# Characters of an output's name in that of its draft: four bytes each at most, of a name's 255.
MOST_OF_A_NAME = 50
PART = ".part"  # how the name of a file ends that `write_atomically` has not finished


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, gone at the end unless it was moved elsewhere.

    Its process holds a lock on it, which ends with the process however that ends: by it
    `Store.sweep` knows what nobody works on any more. (Process ids would come round again, in
    containers with every start.)
    """
    own_folder(parent)
    folder = parent / secrets.token_hex(8)
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle)
        yield folder
    finally:
        os.close(handle)
        remove(folder)


def own_folder(folder: Path) -> Path:
    """A folder that only koinize writes to, made durably if it is not there.

    Raises InputError for a link, which leads to files that are not ours.
    """
    refuse_link(folder)
    make_folder(folder)
    return folder


def refuse_link(path: Path) -> None:
    """Raise InputError where a link stands in the place of what koinize writes itself."""
    if path.is_symlink():
        raise InputError(
            "is a link, and koinize writes and removes nothing through links",
            where=str(path),
            expected="a file or folder of its own",
            remedy="remove the link",
        )


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each of them on disk when this returns. Raises OSError."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync(made.parent)


class NewFolder:
    """A hidden folder beside `out` that takes its place when it is finished, or goes.

    It is locked as long as its process lives, so that whoever next writes the same `out` can
    remove what a killed process left behind. Raises InputError if `out` exists, OSError if it
    cannot be written.
    """

    def __init__(self, out: Path | str) -> None:
        self.out = Path(out).absolute()
        refuse_existing(self.out)
        name = self.out.name[:MOST_OF_A_NAME]
        self.folder = self.out.parent / f".{name}.{secrets.token_hex(4)}.partial"
        missing = [parent for parent in self.out.parents if not parent.exists()]
        # Ctrl-C may come before anybody has entered a `with`: then it goes with this object.
        self._discard = weakref.finalize(self, _remove_with, self.folder, missing)
        try:
            make_folder(self.out.parent)
            for left in self.out.parent.glob(f".{glob.escape(name)}.*.partial"):
                with free(left) as abandoned:
                    if abandoned:
                        remove(left)
            self.folder.mkdir()
        except OSError:
            self._discard()
            raise
        self._handle = os.open(self.folder, os.O_RDONLY)
        lock(self._handle)

    def commit(self) -> None:
        """Make the folder durable, then give it its name. Raises InputError if that exists."""
        refuse_existing(self.out)
        put_in_place(self.folder, self.out)

    def close(self) -> None:
        """Remove the folder if it was not committed, and the parents that were made for it."""
        self._discard()
        os.close(self._handle)


def _remove_with(folder: Path, parents: Iterable[Path]) -> None:
    """Remove a folder, and those of its parents that are empty then, the nearest first."""
    remove(folder)
    for parent in parents:
        with suppress(OSError):  # one that holds something, or was never made
            parent.rmdir()


def refuse_existing(out: Path) -> None:
    """Nothing is ever written over. Raises InputError if `out` exists, or never can."""
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot be written: {reason}", where=str(out), remedy="choose another name"
        ) from None
    raise InputError("exists already", where=str(out), remedy="remove it or choose another name")


def put_in_place(folder: Path, target: Path) -> None:
    """Put a folder with all that is in it on disk, then give it its name. Raises OSError."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
    folder.rename(target)
    sync(target.parent)


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename, fsync of the folder.

    What an earlier write of the same file left, because its process was killed, is removed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}-*{PART}"):
        with free(left) as abandoned:
            if abandoned:
                left.unlink(missing_ok=True)
    with naming(path):
        _replace(path, text, durably=True)
    sync(path.parent)


def write_briefly(path: Path, text: str) -> None:
    """Write a whole file or nothing of what a power failure may take: how far a step is, say."""
    with naming(path):
        _replace(path, text, durably=False)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError that comes from writing say to what: of a full disk the system does not."""
    try:
        yield
    except OSError as error:
        if error.filename or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _replace(path: Path, text: str | bytes, *, durably: bool) -> None:
    """Put a new file in the place of one, or of a link, that is never written into."""
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}{PART}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:  # nobody knows the name of the part
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        # A file name that is no UTF-8 may be part of the text; in JSON the escape means the same.
        content = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text
        with os.fdopen(handle, "wb") as file:
            lock(handle)
            file.write(content)
            file.flush()
            if durably:
                os.fsync(file.fileno())
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Put a file or folder on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Whether no living process holds this file or folder; nobody can take it meanwhile."""
    try:
        # Not to wait for somebody who writes into a pipe; on files and folders it means nothing.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
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
