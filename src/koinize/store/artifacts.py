"""Content-addressed artifacts: committed last and atomically, verified on read.

An artifact is a folder named by the digest of everything that determines it. It is built in a
temporary folder and committed once it is whole, so a process that dies at any moment leaves either
the whole artifact or nothing. Names (`train/topic/ja`) are pointers to ids; they say what was
current last, never what is right. Where artifacts are kept is the business of a `Place`; what is in
them, and whether it is as it was written, is decided here for every place alike.
`docs/reliability.md` says what happens when something breaks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from koinize.digest import short
from koinize.errors import BrokenError, KoinizeError
from koinize.files import read_bytes
from koinize.store.checkpoint import Checkpoint
from koinize.store.durable import (
    PART,
    free,
    own_folder,
    refuse_link,
    remove,
    temporary_folder,
    write_atomically,
)
from koinize.store.folder import identities
from koinize.store.home import Home
from koinize.store.manifest import (
    MANIFEST,
    Manifest,
    broken,
    manifest_text,
    read_manifest,
    wrong_file,
)
from koinize.store.place import Names
from koinize.store.spec import StoreSpec, place


@dataclass(frozen=True)
class Artifact(Manifest):
    """An artifact that `Store.open` has verified, byte by byte."""

    folder: Path

    def path(self, file: str = "") -> Path:
        """The folder, or one file in it."""
        return self.folder / file if file else self.folder


@dataclass
class Draft:
    """An artifact being built: write files into `folder`, put measurements into `facts`."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)


class Store:
    """The artifacts of one project, whose `.koinize` is `root` and whose `store` is `where`."""

    def __init__(self, root: Path, where: StoreSpec | None = None) -> None:
        self.root, self.home = root, Home(root)
        self._place = place(self.home, where)
        self._verified: dict[str, Artifact] = {}
        self.opened = time.monotonic()  # from which on work that it was opened for is counted

    def ids(self) -> set[str]:
        """The ids of every committed artifact."""
        return self._place.ids()

    def checkpoints(self) -> set[str]:
        """The ids of the artifacts of which a beginning is kept."""
        return identities(self.home.checkpoints)

    def checkpoint(self, artifact_id: str, name: str = "") -> Checkpoint:
        """Where the step of this id and name keeps how far it is."""
        return Checkpoint(self.home.checkpoints / artifact_id, self.home.temporary, name)

    def manifest(self, artifact_id: str) -> Manifest | None:
        """What is recorded of an artifact, its files unread; None when there is none.

        Raises BrokenError when what is recorded is broken.
        """
        content = self._place.manifest(artifact_id)
        if content is None:
            return None
        return read_manifest(content, artifact_id, self._place.where(artifact_id))

    def size(self, artifact_id: str) -> int:
        """The bytes that an artifact takes, whether or not it is whole."""
        return self._place.size(artifact_id)

    def open(self, artifact_id: str) -> Artifact:
        """The artifact, with every file's digest checked the first time that this Store opens it.

        Raises KoinizeError when it is not there, BrokenError when a file of it is missing or a
        byte has changed.
        """
        if artifact_id in self._verified:
            return self._verified[artifact_id]
        artifact = self._brought(artifact_id)
        wrong = wrong_file(artifact, artifact.folder)
        if wrong and self._place.again(artifact_id):
            artifact = self._brought(artifact_id)
            wrong = wrong_file(artifact, artifact.folder)
        if wrong:
            where = self._place.where(artifact_id)
            raise broken(where, f"its file {wrong} is missing or has changed")
        self._verified[artifact_id] = artifact
        return artifact

    def _brought(self, artifact_id: str) -> Artifact:
        recorded = self.manifest(artifact_id)
        if recorded is None:
            raise KoinizeError(
                f"artifact {short(artifact_id)} is not in the store",
                where=self._place.where(),
                remedy="run again: it will be built",
            )
        return Artifact(**vars(recorded), folder=self._place.files(artifact_id))

    @contextmanager
    def building(self, artifact_id: str, name: str, inputs: Mapping[str, str]) -> Iterator[Draft]:
        """Build an artifact: on a clean exit it is committed, on an exception nothing remains.

        When two processes build the same id, the first to finish is kept. Raises OSError.
        """
        with temporary_folder(self.home.temporary) as folder:
            draft = Draft(folder)
            yield draft
            text = manifest_text(folder, artifact_id, name, inputs, draft.facts)
            write_atomically(folder / MANIFEST, text)
            self._place.commit(folder, artifact_id)
            self.home.lost(artifact_id).unlink(missing_ok=True)
            self.checkpoint(artifact_id).discard()

    def names(self) -> Names:
        """Name -> id of what was current when the last run ended or stopped.

        Where they are lost or cannot be read, the newest artifact of each name is taken for it.
        """
        return self._or_newest(self.written_names())

    def written_names(self) -> Names | None:
        """The names as they were written; None where they are lost or cannot be read."""
        return self._place.names()

    def _or_newest(self, written: Names | None) -> Names:
        if written is not None:
            return written
        found: list[tuple[float, Manifest]] = []
        for artifact_id in self.ids():
            with suppress(KoinizeError, FileNotFoundError):
                if recorded := self.manifest(artifact_id):
                    found.append((self._place.committed(artifact_id), recorded))
        return {one.name: one.id for _, one in sorted(found, key=lambda pair: pair[0])}

    def point(self, names: Mapping[str, str]) -> None:
        """Move the pointers of these names."""
        self._place.rename(lambda written: {**self._or_newest(written), **names})

    def forget(self, names: Iterable[str]) -> None:
        """Remove the pointers of these names; the artifacts stay."""
        gone = set(names)
        self._place.rename(
            lambda written: {
                name: one for name, one in self._or_newest(written).items() if name not in gone
            }
        )

    def discard(self, artifact_id: str) -> None:
        """Remove an artifact, or its beginning."""
        self.checkpoint(artifact_id).discard()
        self._verified.pop(artifact_id, None)
        self._place.remove(artifact_id)

    def lose(self, artifact_id: str) -> None:
        """Remove a broken artifact, so that the next run builds it again.

        What its manifest said is remembered until then: an adapter that was continued cannot be
        built again by whoever does not know from which one.
        """
        with suppress(KoinizeError, OSError):  # a manifest that is broken, too; a full disk
            content = self._place.manifest(artifact_id)
            if content is not None:
                read_manifest(content, artifact_id, self._place.where(artifact_id))
                lost = self.home.lost(artifact_id)
                own_folder(lost.parent)
                write_atomically(lost, content.decode())
        self.discard(artifact_id)

    def lost(self, artifact_id: str) -> Manifest | None:
        """What is remembered of a broken artifact that was removed and is not built again yet."""
        path = self.home.lost(artifact_id)
        try:
            return read_manifest(read_bytes(path), artifact_id, str(path))
        except (BrokenError, OSError):
            return None

    def settle(self) -> None:
        """Begin a run: remove what processes that no longer live left half built here, and see that
        what is made can be committed. Raises InputError where it cannot.
        """
        self.sweep()
        self._place.settle()

    def orphans(self) -> list[str]:
        """What writers on any machine left half written in a shared store, a day ago or longer."""
        return self._place.orphans()

    def remove_orphans(self) -> None:
        """Remove that."""
        self._place.remove_orphans()

    def sweep(self) -> None:
        """Remove what processes that no longer live left half built."""
        for path in self.leftovers():
            remove(path)

    def leftovers(self) -> list[Path]:
        """What processes that no longer live left half built: artifacts, and files beside them."""
        temporary = self.home.temporary
        refuse_link(temporary)
        begun = [*temporary.iterdir()] if temporary.is_dir() else []
        found = []
        own = (self.root, *self.root.glob("*/"), *self.home.cache.glob("*/"))
        parts = [one.glob(f".*{PART}") for one in own if not one.is_symlink()]
        for path in (*begun, *chain.from_iterable(parts)):
            with free(path) as abandoned:
                if abandoned:
                    found.append(path)
        return found
