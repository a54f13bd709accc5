"""Files that koinize may write over: its own of an earlier time, and no others."""

from __future__ import annotations

from pathlib import Path

from koinize.errors import InputError
from koinize.files import open_regular
from koinize.store.home import FOLDER


def replaceable(path: Path, begins: str, what: str) -> Path:
    """The path, if there is nothing yet or what begins as `what` does.

    Raises InputError for other files, and for what koinize keeps for itself.
    """
    refuse_own_folder(path)
    try:
        content = b""
        if path.exists():
            with open_regular(path) as file:
                content = file.read(len(begins.encode()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot be written: {reason}", where=str(path)) from error
    if not path.resolve().parent.is_dir():
        raise InputError(
            "cannot be written: its folder is not there",
            where=str(path),
            remedy="make the folder, or choose another place",
        )
    if content and content != begins.encode():
        raise InputError(
            f"is there already, and is no {what} that koinize wrote",
            where=str(path),
            remedy="remove it or choose another name",
        )
    return path


def refuse_own_folder(path: Path) -> None:
    """Raise InputError for a place inside koinize's own folder, or one that no path can name."""
    try:
        whole = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # such as links that go in a circle
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot be written: {reason}", where=str(path), remedy="choose another place"
        ) from None
    if FOLDER in whole.parts:
        raise InputError(
            f"lies in {FOLDER}, where koinize keeps its own files",
            where=str(path),
            remedy="choose another place",
        )
