"""What is recorded of an artifact: written once as it is committed, checked whenever it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NoReturn

from pydantic import ConfigDict
from typing_extensions import TypedDict

from koinize.digest import digest, file_digest, short
from koinize.errors import BrokenError, KoinizeError
from koinize.files import parse_json
from koinize.store.typed import Count, Identity, Inside, Seconds, typed

MANIFEST = "manifest.json"
FORMAT = 1


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
    steps: Count
    steps_before: Count
    tokens_before: Count
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

    def __init__(self, facts: Mapping[str, Any], where: str) -> None:
        super().__init__(facts)
        self.where = where

    def __missing__(self, key: str) -> NoReturn:
        raise broken(self.where, f"its {MANIFEST} lacks the field 'facts.{key}'")


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


def manifest_text(
    folder: Path, artifact_id: str, name: str, inputs: Mapping[str, str], facts: Mapping[str, Any]
) -> str:
    """The manifest of the files that are in the folder now. Raises OSError."""
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": file_digest(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    record = {
        "format": FORMAT,
        "id": artifact_id,
        "name": name,
        "inputs": dict(inputs),
        "facts": facts,
        "files": files,
    }
    as_read = json.loads(json.dumps(record))  # the digest is of what a reader will find
    record["digest"] = digest(as_read)
    return json.dumps(record, indent=1, ensure_ascii=False)


def read_manifest(content: bytes, artifact_id: str, where: str) -> Manifest:
    """The manifest of this artifact, which is at `where`. Raises BrokenError."""
    try:
        record = parse_json(content)
    except ValueError as error:
        raise broken(where, f"its {MANIFEST} cannot be read") from error
    if not isinstance(record, dict) or record.pop("digest", None) != digest(record):
        raise broken(where, f"its {MANIFEST} has changed")
    if (version := record.get("format")) != FORMAT:
        raise broken(where, f"its format is {version}, not {FORMAT}")
    try:
        found = typed(Recorded, record)
    except KoinizeError as error:
        raise broken(where, f"in its {MANIFEST}, {error.what}") from error
    if found["id"] != artifact_id:
        raise broken(where, f"its {MANIFEST} is that of {short(found['id'])}")
    facts = _Facts(found["facts"], where)
    return Manifest(found["id"], found["name"], found["inputs"], facts, found["files"])


def wrong_file(recorded: Manifest, folder: Path) -> str:
    """The first of its files that is missing here or has changed; empty when all are right."""
    for name, entry in recorded.files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != entry["sha256"]:
            return name
    return ""


def broken(where: str, what: str) -> BrokenError:
    """The artifact that is at `where`, which ends with its id, is not as it was written."""
    return BrokenError(
        f"artifact {short(PurePath(where).name)} is broken: {what}",
        where=where,
        remedy="run `koinize doctor --mend`, then `koinize run`: just that is built again",
    )
