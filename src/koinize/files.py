"""Reading what may be anything: regular files only, and no more of them than makes sense.

A pipe or a device has no end, a file of the wrong kind may be larger than the memory. Both are an
OSError here, so whoever reads a file says of them what it says of one that cannot be read.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

MEGABYTE = 1 << 20
LARGEST_TEXT = 8 * MEGABYTE  # of a file that people write
LARGEST_RECORD = 1024 * MEGABYTE  # of a file that koinize writes, and of rows
DEEPEST = 100  # lists and objects within one another

Stamp = tuple[int, ...]
"""Device, inode, size and the times of the last change of content and of status."""
TICK = 0.02  # seconds, more than the clock of any file system goes on at once

NOT_REGULAR = "it is no regular file but a pipe or a device"


class NotRegularError(OSError):
    """A pipe, a device or a folder stands where a file was expected."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, or a link to one, to read its bytes. Raises OSError for others."""
    try:
        # Not to wait for somebody who writes into a pipe; on regular files it means nothing.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise NotRegularError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise NotRegularError(errno.EINVAL, NOT_REGULAR, str(path))
    return os.fdopen(handle, "rb")


def stamp(status: os.stat_result) -> Stamp:
    """What differs as soon as anybody writes into a file, or puts another in its place.

    Who sets the time of the content back changes that of the status. A file that was written this
    very moment could be written again within the same tick of the clock: that is waited for.
    """
    age = time.time() - status.st_ctime
    if 0 <= age < TICK:
        time.sleep(TICK - age)
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def read_bytes(path: Path, largest: int = LARGEST_RECORD) -> bytes:
    """All bytes of a regular file. Raises OSError, also for one that is larger than `largest`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > largest:
            what = f"it has more than {largest:,} bytes, the most that is read of such a file"
            raise OSError(errno.EFBIG, what, str(path))
        return file.read()


def parse_json(text: bytes | str) -> Any:  # noqa: ANN401 - as various as JSON is
    """What JSON says. Raises ValueError for what is none, or nested so deeply that none is meant.

    A number of more digits than Python converts is a ValueError too.
    """
    try:
        value = json.loads(text)
        refuse_depth(value)
    except RecursionError:
        raise _too_deep() from None
    return value


def refuse_depth(value: object, deepest: int = DEEPEST) -> None:
    """Raise ValueError where lists and mappings are nested more deeply than this."""
    layer = [value]
    for _ in range(deepest + 1):
        layer = [
            part
            for one in layer
            if isinstance(one, Mapping | list)
            for part in (one.values() if isinstance(one, Mapping) else one)
        ]
        if not layer:
            return
    raise _too_deep()


def telling_names(paths: Sequence[Path]) -> list[str]:
    """Names for folders: the last part of each path, or as many as it takes to tell them apart.

    Paths that are the same one are numbered: names are what results are told apart by.
    """
    whole = [[part for part in path.parts if part not in ("/", ".", "..")] for path in paths]
    for count in range(1, max(map(len, whole), default=0) + 1):
        names = ["-".join(parts[-count:]) for parts in whole]
        if len(set(names)) == len(names) and all(names):
            return names
    return [f"{number}-{path.name}" for number, path in enumerate(paths, start=1)]


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects are nested more than {DEEPEST} deep")
