"""Content-addressed artifacts: committed last and atomically, verified on read.

An artifact is a folder named by the digest of everything that determines it. It is built in a
temporary folder beside the store and renamed into place once every byte is on disk, so a process
that dies at any moment leaves either the whole artifact or nothing. Names (`train/topic/ja`) are
pointers to ids; they say what was current last, never what is right.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koinize.digest import digest, file_digest, short
from koinize.errors import KoinizeError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: `inputs` maps what it was made from to digests; `facts` is measured."""

    id: str
    name: str
    folder: Path
    inputs: Mapping[str, str]
    facts: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]

    def path(self, file: str = "") -> Path:
        """The folder, or one file in it. Only `Store.open` vouches for the bytes."""
        return self.folder / file if file else self.folder


@dataclass
class Draft:
    """An artifact being built: write files into `folder`, put measurements into `facts`."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)


class Store:
    """The artifacts of one project, under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[str, Artifact] = {}

    def ids(self) -> set[str]:
        """The ids of every committed artifact."""
        folder = self.root / "artifacts"
        return {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()

    def manifest(self, artifact_id: str) -> Artifact | None:
        """What is recorded of an artifact, its files unread; None when there is none."""
        folder = self.root / "artifacts" / artifact_id
        try:
            record = json.loads((folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise _broken(folder, f"its {MANIFEST} cannot be read") from error
        if not isinstance(record, dict) or record.pop("digest", None) != digest(record):
            raise _broken(folder, f"its {MANIFEST} has changed")
        if record["format"] != FORMAT:
            raise _broken(folder, f"its format is {record['format']}, not {FORMAT}")
        return Artifact(
            record["id"],
            record["name"],
            folder,
            record["inputs"],
            record["facts"],
            record["files"],
        )

    def open(self, artifact_id: str) -> Artifact:
        """The artifact, with every file's digest checked the first time that this Store opens it.

        Raises KoinizeError when it is missing, a file of it is missing, or a byte has changed.
        """
        if artifact_id in self._verified:
            return self._verified[artifact_id]
        artifact = self.manifest(artifact_id)
        if artifact is None or artifact.id != artifact_id:
            raise KoinizeError(
                f"artifact {short(artifact_id)} is not in the store",
                where=str(self.root / "artifacts"),
                remedy="run again: it will be built",
            )
        for name, entry in artifact.files.items():
            path = artifact.folder / name
            if not path.is_file() or file_digest(path) != entry["sha256"]:
                raise _broken(artifact.folder, f"its file {name} is missing or has changed")
        self._verified[artifact_id] = artifact
        return artifact

    @contextmanager
    def building(self, artifact_id: str, name: str, inputs: Mapping[str, str]) -> Iterator[Draft]:
        """Build an artifact: on a clean exit it is committed, on an exception nothing remains.

        When two processes build the same id, the first to finish is kept. Raises OSError.
        """
        with self._temporary() as folder:
            draft = Draft(folder)
            yield draft
            self._commit(draft, artifact_id, name, inputs)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A folder of this process on the store's own disk, gone at the end."""
        parent = self.root / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

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
        for path in draft.folder.rglob("*"):
            _sync(path)
        as_read = json.loads(json.dumps(record))  # the digest is of what a reader will find
        record["digest"] = digest(as_read)
        write_atomically(draft.folder / MANIFEST, json.dumps(record, indent=1, ensure_ascii=False))
        _sync(draft.folder)
        target = self.root / "artifacts" / artifact_id
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.folder.chmod(0o755)  # mkdtemp makes folders that nobody else can read
        try:
            draft.folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            return  # somebody else committed the same content first
        _sync(target.parent)

    def names(self) -> dict[str, str]:
        """Name -> id of what was current when the last run ended or stopped."""
        try:
            names = json.loads((self.root / "names.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}  # pointers are a convenience: without them only the reasons are poorer
        return names if isinstance(names, dict) else {}

    def point(self, names: Mapping[str, str]) -> None:
        """Move the pointers of these names."""
        current = self.names()
        if any(current.get(name) != artifact_id for name, artifact_id in names.items()):
            self.root.mkdir(parents=True, exist_ok=True)
            write_atomically(
                self.root / "names.json", json.dumps({**current, **names}, indent=0, sort_keys=True)
            )

    def discard(self, artifact_id: str) -> None:
        """Remove an artifact, for example a broken one, so that the next run builds it again."""
        self._verified.pop(artifact_id, None)
        with self._temporary() as folder, suppress(FileNotFoundError):
            # Moved away whole, so that whoever is killed here leaves no half of it behind.
            (self.root / "artifacts" / artifact_id).rename(folder / artifact_id)

    def sweep(self) -> None:
        """Remove what processes that no longer live left half built."""
        temporary = self.root / "tmp"
        for folder in temporary.iterdir() if temporary.is_dir() else ():
            if not _alive(folder.name.partition("-")[0]):
                shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        # A file name that is no UTF-8 may be part of the text; in JSON the escape means the same.
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _broken(folder: Path, what: str) -> KoinizeError:
    return KoinizeError(
        f"artifact {short(folder.name)} is broken: {what}",
        where=str(folder),
        remedy="delete that folder and run again: it will be rebuilt",
    )
