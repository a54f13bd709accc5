"""Immutable releases of one task, and the pointer of each channel to the one in use.

`.koinize/releases/TASK/v3/` is a PEFT folder with its card, its evidence and a manifest with the
digest of every file. It is written to a temporary folder, synced and renamed, so it is there whole
or not at all. `.koinize/releases/TASK/production.json` says which release is in use and how it came
to that; it is replaced in one rename. Whoever writes holds the project's lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from koinize.digest import file_digest
from koinize.errors import InputError, KoinizeError, did_you_mean
from koinize.files import parse_json, read_bytes
from koinize.store import Home, put_in_place, temporary_folder
from koinize.store.durable import own_folder
from koinize.store.record import read_record, write_record
from koinize.store.typed import Count, Identity, Inside, typed

MANIFEST = "release.json"
FORMAT = 1
CHANNELS = ("production", "staging")
VERSION = re.compile(r"v([1-9][0-9]{0,8})")

Action = Literal["promote", "rollback", "anchor"]
Version = Annotated[int, Field(ge=1, lt=10**9)]


class Settings(TypedDict):
    """The sections of koinize.yaml that two releases are compared by; there may be more."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    base: dict[str, Any]
    evaluation: dict[str, Any]


class ScoreEntry(TypedDict):
    """A score, as `metrics.Score` keeps it."""

    language: str
    metric: str
    value: float
    low: float
    high: float
    n: Count
    signature: str


class DataEntry(TypedDict):
    """The rows of a split of a language."""

    digest: str
    rows: Count


class Evidence(TypedDict):
    """Of what was measured before a release, that which two of them are compared by."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    scores: list[ScoreEntry]
    data: dict[str, DataEntry]
    cost: dict[str, Any]


class LedgerEnd(TypedDict):
    """Where the ledger ended."""

    records: Count
    digest: Identity


class Recorded(TypedDict):
    """What the manifest of a release says; there may be more."""

    version: Version
    identity: Identity
    candidate: Identity
    task: str
    channel: str
    created: str
    koinize: str
    system: str
    adapter: Identity
    languages: list[Inside]
    settings: Settings
    artifacts: dict[str, Identity]
    attempts: NotRequired[Count]
    ledger: NotRequired[LedgerEnd]
    files: dict[Inside, Identity]


@dataclass(frozen=True)
class Release:
    """One release: `record` is its manifest, without the digests of its files."""

    version: int
    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`v3`."""
        return f"v{self.version}"

    def read_json(self, file: str) -> dict[str, Any]:
        """Its evidence, among its files. Raises KoinizeError for what is none."""
        try:
            found = typed(Evidence, parse_json(read_bytes(self.folder / file)))
        except ValueError as error:
            raise _broken(self.folder, f"its file {file} cannot be read") from error
        except KoinizeError as error:
            raise _broken(self.folder, f"in its file {file}, {error.what}") from error
        return cast("dict[str, Any]", found)


@dataclass(frozen=True)
class Event:
    """One change of a channel: to `version`, from `before` (None: nothing was in use); or, for
    "anchor", which release every candidate is compared with besides the one in use.
    """

    utc: str
    action: Action
    version: Version
    before: Version | None


class Pointer(TypedDict):
    """What the file of a channel says."""

    stack: list[Version]
    events: list[Event]


@dataclass(frozen=True)
class Channel:
    """Where a channel points. `stack`: the releases that a rollback can go back through, the one
    in use last. `events`: everything that ever happened, the oldest first.
    """

    name: str
    stack: tuple[int, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def current(self) -> int | None:
        """The version in use; None before the first promotion."""
        return self.stack[-1] if self.stack else None

    @property
    def latest(self) -> Event | None:
        """The event that put into use what is in use."""
        return next((one for one in reversed(self.events) if one.action != "anchor"), None)

    @property
    def anchor(self) -> int | None:
        """The version that drift is measured from: the one pinned last, else the first of all."""
        pinned = [event.version for event in self.events if event.action == "anchor"]
        if pinned:
            return pinned[-1]
        return self.events[0].version if self.events else None

    def anchored(self, version: int) -> Channel:
        """This channel with its drift measured from this version."""
        return self._noted(self.stack, Event(now(), "anchor", version, self.anchor))

    def promoted(self, version: int) -> Channel:
        """This channel with another release in use."""
        return self._moved((*self.stack, version), "promote")

    def rolled_back(self) -> Channel:
        """This channel with the release before in use; there must be one."""
        return self._moved(self.stack[:-1], "rollback")

    def _moved(self, stack: tuple[int, ...], action: Action) -> Channel:
        return self._noted(stack, Event(now(), action, stack[-1], self.current))

    def _noted(self, stack: tuple[int, ...], event: Event) -> Channel:
        return Channel(self.name, stack, (*self.events, event))


class Releases:
    """The releases of one task of the project whose .koinize folder is `home`."""

    def __init__(self, home: Path, task: str) -> None:
        self.task, self.home = task, home
        self.folder = Home(home).releases / task

    def versions(self) -> list[int]:
        """The versions that are there, the oldest first."""
        names = [one.name for one in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(found[1]) for one in names if (found := VERSION.fullmatch(one)))

    def open(self, version: int) -> Release:
        """A release, the digest of every file of it checked.

        Raises InputError when there is none of this version, KoinizeError when it is broken.
        """
        folder = self.folder / f"v{version}"
        if not folder.is_dir():
            listed = ", ".join(f"v{one}" for one in self.versions()) or "none yet"
            raise InputError(
                f"there is no release v{version} of task '{self.task}'",
                where=str(self.folder),
                expected=f"one of these: {listed}",
            )
        record = _read_record(folder / MANIFEST)
        if record is None or record.get("version") != version or folder.is_symlink():
            raise _broken(folder, f"its {MANIFEST} is missing or has changed")
        try:
            files = typed(Recorded, record)["files"]
        except KoinizeError as error:
            raise _broken(folder, f"in its {MANIFEST}, {error.what}") from error
        for name, sha256 in files.items():
            path = folder / name
            if not path.is_file() or file_digest(path) != sha256:
                raise _broken(folder, f"its file {name} is missing or has changed")
        known = {key: value for key, value in record.items() if key != "files"}
        return Release(version, folder, known)

    def next_version(self) -> int:
        """One more than any version that ever was: a number is never given twice."""
        events = [event.version for name in CHANNELS for event in self.channel(name).events]
        return max([0, *self.versions(), *events]) + 1

    def add(self, version: int, record: Mapping[str, Any], fill: Callable[[Path], None]) -> Release:
        """Commit a release: `fill` writes its files into a folder that nobody sees yet."""
        with temporary_folder(Home(self.home).temporary) as folder:
            fill(folder)
            self._commit(folder, version, record)
        return self.open(version)

    def _commit(self, folder: Path, version: int, record: Mapping[str, Any]) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}
        write_record(
            folder / MANIFEST, {"format": FORMAT, "version": version, **record, "files": files}
        )
        for path in folder.rglob("*"):
            if path.is_file():
                # A reminder for people; the digests are what holds.
                path.chmod(path.stat().st_mode & 0o444)
        own_folder(self.folder)
        put_in_place(folder, self.folder / f"v{version}")

    def channel(self, name: str) -> Channel:
        """Where a channel points. Raises InputError for an unknown one, KoinizeError when its
        pointer was changed by other hands.
        """
        if name not in CHANNELS:
            remedy = did_you_mean(name, CHANNELS)
            raise InputError(f"unknown channel '{name}'", remedy=remedy)
        path = self._pointer(name)
        if not path.exists():
            return Channel(name)
        record = _read_record(path)
        if record is None:
            raise KoinizeError(
                "the pointer of this channel cannot be read or has changed",
                where=str(path),
                remedy="restore the file from a copy, or delete it and promote anew",
            )
        remedy = "restore the file from a copy, or delete it and promote anew"
        pointer = typed(Pointer, record, where=str(path), remedy=remedy)
        return Channel(name, tuple(pointer["stack"]), tuple(pointer["events"]))

    def switch(self, channel: Channel) -> None:
        """Let a channel point elsewhere, in one rename."""
        path = self._pointer(channel.name)
        write_record(
            path,
            {
                "format": FORMAT,
                "stack": list(channel.stack),
                "events": [asdict(event) for event in channel.events],
            },
        )

    def _pointer(self, channel: str) -> Path:
        return self.folder / f"{channel}.json"


def now() -> str:
    """The present time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def version_of(text: str) -> int:
    """3 for `v3` or `3`. Raises InputError."""
    found = VERSION.fullmatch(text if text.startswith("v") else f"v{text}")
    if not found:
        raise InputError(f"'{text}' is no release", expected="a version such as v3")
    return int(found[1])


def _read_record(path: Path) -> dict[str, Any] | None:
    """A record of the format that this koinize writes; None for anything else."""
    record = read_record(path)
    return record if record and record.get("format") == FORMAT else None


def _broken(folder: Path, what: str) -> KoinizeError:
    return KoinizeError(
        f"release {folder.name} is broken: {what}",
        where=str(folder),
        remedy="restore that folder from a copy; a release cannot be rebuilt",
    )
