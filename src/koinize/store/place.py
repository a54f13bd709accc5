"""Where artifacts are kept: what `Store` asks of a place, and nobody else asks anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

Names = dict[str, str]
"""Name of a step -> id of the artifact that was current last."""


class Place(Protocol):
    """Where artifacts are, each whole under its id or not at all, with the names that point there.

    `Folder` is one on this machine, `Bucket` one in an object store. Every method may raise OSError
    or, with a message for people, KoinizeError.
    """

    def where(self, artifact_id: str = "") -> str:
        """What messages call an artifact here, its id last; without an id, the whole place."""

    def ids(self) -> set[str]:
        """The ids of every committed artifact."""

    def manifest(self, artifact_id: str) -> bytes | None:
        """The bytes of its manifest; None when there is no such artifact.

        Raises BrokenError where there is one, and its manifest cannot be read.
        """

    def files(self, artifact_id: str) -> Path:
        """A folder of this machine with its files, which nobody has compared with the manifest."""

    def again(self, artifact_id: str) -> bool:
        """Whether `files`, which gave wrong bytes, can bring others: of a copy from elsewhere."""

    def commit(self, folder: Path, artifact_id: str) -> None:
        """Take this folder, its manifest included, as the artifact, unless there is one already."""

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact, if it is there."""

    def committed(self, artifact_id: str) -> float:
        """When it was committed, as a Unix time."""

    def size(self, artifact_id: str) -> int:
        """The bytes that it takes, whether or not it is whole."""

    def names(self) -> Names | None:
        """The names as they were written; None where they are lost or, with a warning, spoiled."""

    def settle(self) -> None:
        """Begin a run: see that one can commit, and finish committing what could not be before."""

    def orphans(self) -> list[str]:
        """What writers on any machine left half written, long enough ago to be nobody's."""

    def remove_orphans(self) -> None:
        """Remove that."""

    def rename(self, change: Callable[[Names | None], Names]) -> None:
        """Write the names as `change` makes them of what `names` says; it may be asked again."""
