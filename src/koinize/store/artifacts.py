"""Content-addressed artifacts: committed last and atomically, verified on read.

An artifact is a folder named by the digest of everything that determines it. It is built in a
temporary folder beside the store and renamed into place once every byte is on disk, so a process
that dies at any moment leaves either the whole artifact or nothing. Names (`train/topic/ja`) are
pointers to ids; they say what was current last, never what is right. `docs/reliability.md` says
what happens when something breaks.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ConfigDict
from typing_extensions import TypedDict

from koinize.digest import digest, file_digest, short
from koinize.errors import BrokenError, KoinizeError
from koinize.files import NotRegularError, parse_json, read_bytes
from koinize.store.durable import (
    PART,
    free,
    own_folder,
    put_in_place,
    refuse_link,
    remove,
    temporary_folder,
    write_atomically,
)
from koinize.store.home import Home
from koinize.store.typed import Count, Identity, Inside, Seconds, typed

MANIFEST = "manifest.json"
FORMAT = 1
IDENTITY = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


class FileEntry(TypedDict):
    """A file of an artifact."""

    sha256: Identity
    bytes: Count


class Measured(TypedDict, total=False):
    """Those of an artifact's facts that others reckon with; there may be more."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    seconds: Seconds
    load_seconds: Seconds
    tokens: Count
    units: Count
    updates: Count
    rank: Count
    chosen: str
    adapter: Identity
    metric: str
    means: dict[str, float]
    modules: dict[str, float]
    rows: dict[str, Count]
    settings: dict[str, Any]
    truncation_error: float


class Recorded(TypedDict):
    """What a manifest says, without its format and its digest."""

    id: str
    name: str
    inputs: dict[str, str]
    facts: Measured
    files: dict[Inside, FileEntry]


class _Facts(dict[str, Any]):
    """What was measured; who asks for what was not recorded learns which artifact lacks it."""

    def __init__(self, facts: Mapping[str, Any], folder: Path) -> None:
        super().__init__(facts)
        self.folder = folder

    def __missing__(self, key: str) -> NoReturn:
        raise _broken(self.folder, f"its {MANIFEST} lacks the field 'facts.{key}'")


@dataclass(frozen=True)
class Manifest:
    """What is recorded of an artifact: `inputs` maps what it was made from to digests; `facts` is
    measured. It leads to no file, since nobody has looked whether they are whole.
    """

    id: str
    name: str
    inputs: Mapping[str, str]
    facts: Mapping[str, Any]
    files: Mapping[str, FileEntry]


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
    """The artifacts of one project, under `root`."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, Home(root)
        self._verified: dict[str, Artifact] = {}

    def ids(self) -> set[str]:
        """The ids of every committed artifact."""
        folder = self.home.artifacts
        entries = os.scandir(folder) if folder.is_dir() else ()
        return {entry.name for entry in entries if IDENTITY.fullmatch(entry.name)}

    def manifest(self, artifact_id: str) -> Manifest | None:
        """What is recorded of an artifact, its files unread; None when there is none.

        Raises BrokenError when what is recorded is broken.
        """
        folder = self._folder(artifact_id)
        if not folder.exists():
            return None
        if folder.is_symlink():
            raise _broken(folder, "it is a link to a folder elsewhere")
        return self._recorded(artifact_id, folder / MANIFEST)

    def _folder(self, artifact_id: str) -> Path:
        return self.home.artifacts / artifact_id

    def _recorded(self, artifact_id: str, file: Path) -> Manifest:
        folder = self._folder(artifact_id)
        try:
            record = parse_json(read_bytes(file))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _broken(folder, f"its {MANIFEST} is missing") from error
        except (NotRegularError, ValueError) as error:
            raise _broken(folder, f"its {MANIFEST} cannot be read") from error
        if not isinstance(record, dict) or record.pop("digest", None) != digest(record):
            raise _broken(folder, f"its {MANIFEST} has changed")
        if (version := record.get("format")) != FORMAT:
            raise _broken(folder, f"its format is {version}, not {FORMAT}")
        try:
            found = typed(Recorded, record)
        except KoinizeError as error:
            raise _broken(folder, f"in its {MANIFEST}, {error.what}") from error
        if found["id"] != artifact_id:
            raise _broken(folder, f"its {MANIFEST} is that of {short(found['id'])}")
        facts = _Facts(found["facts"], folder)
        return Manifest(found["id"], found["name"], found["inputs"], facts, found["files"])

    def open(self, artifact_id: str) -> Artifact:
        """The artifact, with every file's digest checked the first time that this Store opens it.

        Raises KoinizeError when it is not there, BrokenError when a file of it is missing or a
        byte has changed.
        """
        if artifact_id in self._verified:
            return self._verified[artifact_id]
        recorded = self.manifest(artifact_id)
        if recorded is None:
            raise KoinizeError(
                f"artifact {short(artifact_id)} is not in the store",
                where=str(self.home.artifacts),
                remedy="run again: it will be built",
            )
        artifact = Artifact(**vars(recorded), folder=self._folder(artifact_id))
        for name, entry in artifact.files.items():
            path = artifact.path(name)
            if not path.is_file() or file_digest(path) != entry["sha256"]:
                raise _broken(artifact.folder, f"its file {name} is missing or has changed")
        self._verified[artifact_id] = artifact
        return artifact

    @contextmanager
    def building(self, artifact_id: str, name: str, inputs: Mapping[str, str]) -> Iterator[Draft]:
        """Build an artifact: on a clean exit it is committed, on an exception nothing remains.

        When two processes build the same id, the first to finish is kept. Raises OSError.
        """
        with temporary_folder(self.home.temporary) as folder:
            draft = Draft(folder)
            yield draft
            self._commit(draft, artifact_id, name, inputs)

    def _commit(self, draft: Draft, artifact_id: str, name: str, inputs: Mapping[str, str]) -> None:
        files = {
            path.relative_to(draft.folder).as_posix(): {
                "sha256": file_digest(path),
                "bytes": path.stat().st_size,
            }
            for path in sorted(draft.folder.rglob("*"))
            if path.is_file()
        }
        record = {
            "format": FORMAT,
            "id": artifact_id,
            "name": name,
            "inputs": dict(inputs),
            "facts": draft.facts,
            "files": files,
        }
        as_read = json.loads(json.dumps(record))  # the digest is of what a reader will find
        record["digest"] = digest(as_read)
        write_atomically(draft.folder / MANIFEST, json.dumps(record, indent=1, ensure_ascii=False))
        target = self._folder(artifact_id)
        own_folder(target.parent)
        try:
            put_in_place(draft.folder, target)
        except OSError:
            if not target.is_dir():
                raise
            return  # somebody else committed the same content first
        self.home.lost(artifact_id).unlink(missing_ok=True)

    def names(self) -> dict[str, str]:
        """Name -> id of what was current when the last run ended or stopped.

        Where the file is lost or cannot be read, the newest artifact of each name is taken for it.
        """
        written = self.written_names()
        if written is not None:
            return written
        path = self.home.names
        if path.exists():
            logger.warning("%s cannot be read; the newest artifact of each name is taken", path)
        return self._newest()

    def written_names(self) -> dict[str, str] | None:
        """The names as they stand in the file; None where it is lost or cannot be read."""
        try:
            return typed(dict[str, str], parse_json(read_bytes(self.home.names)))
        except (FileNotFoundError, NotRegularError, ValueError, KoinizeError):
            return None

    def _newest(self) -> dict[str, str]:
        found: list[tuple[int, Manifest]] = []
        for artifact_id in self.ids():
            with suppress(KoinizeError, FileNotFoundError):
                if recorded := self.manifest(artifact_id):
                    written = self._folder(artifact_id) / MANIFEST
                    found.append((written.stat().st_mtime_ns, recorded))
        return {one.name: one.id for _, one in sorted(found, key=lambda pair: pair[0])}

    def point(self, names: Mapping[str, str]) -> None:
        """Move the pointers of these names."""
        self._keep({**self.names(), **names})

    def forget(self, names: Iterable[str]) -> None:
        """Remove the pointers of these names; the artifacts stay."""
        gone = set(names)
        self._keep({name: one for name, one in self.names().items() if name not in gone})

    def _keep(self, names: Mapping[str, str]) -> None:
        if names != (self.written_names() or {}):
            own_folder(self.root)
            text = json.dumps(names, indent=0, sort_keys=True)
            write_atomically(self.home.names, text)

    def discard(self, artifact_id: str) -> None:
        """Remove an artifact."""
        self._verified.pop(artifact_id, None)
        temporary = own_folder(self.home.temporary)
        # Moved away whole, so that whoever is killed here leaves no half of it behind; and by a
        # rename alone, which also succeeds on a full disk.
        moved = temporary / artifact_id
        remove(moved)
        with suppress(FileNotFoundError):
            self._folder(artifact_id).rename(moved)
        remove(moved)

    def lose(self, artifact_id: str) -> None:
        """Remove a broken artifact, so that the next run builds it again.

        What its manifest said is remembered until then: an adapter that was continued cannot be
        built again by whoever does not know from which one.
        """
        with suppress(KoinizeError, OSError):  # a manifest that is broken, too; a full disk
            if self.manifest(artifact_id) is not None:
                lost = self.home.lost(artifact_id)
                own_folder(lost.parent)
                manifest = self._folder(artifact_id) / MANIFEST
                write_atomically(lost, manifest.read_text(encoding="utf-8"))
        self.discard(artifact_id)

    def lost(self, artifact_id: str) -> Manifest | None:
        """What is remembered of a broken artifact that was removed and is not built again yet."""
        try:
            return self._recorded(artifact_id, self.home.lost(artifact_id))
        except BrokenError:
            return None

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
        for path in (*begun, *self.root.glob(f".*{PART}")):
            with free(path) as abandoned:
                if abandoned:
                    found.append(path)
        return found


def _broken(folder: Path, what: str) -> BrokenError:
    return BrokenError(
        f"artifact {short(folder.name)} is broken: {what}",
        where=str(folder),
        remedy="run `koinize doctor --mend`, then `koinize run`: just that is built again",
    )
