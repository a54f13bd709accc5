"""Artifacts in an object store that several machines share: one small request commits each.

    manifests/ID.json             the manifest, and which attempt has the files
    artifacts/ID/ATTEMPT/FILE     the files, under a name that no other writer ever uses
    names.json                    the names

The files come first and the manifest last, by a request that fails where there is one already. So
whoever is killed before it leaves an attempt that nobody reads, and of two writers of one artifact
the first is right, for both. What is committed lies in the project's own folder until it is sent.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from koinize.errors import BrokenError, InputError, KoinizeError
from koinize.files import parse_json
from koinize.store.cache import Cache
from koinize.store.durable import temporary_folder
from koinize.store.folder import IDENTITY, Folder
from koinize.store.home import Home
from koinize.store.manifest import MANIFEST, Manifest, broken, read_manifest, wrong_file
from koinize.store.objects import MOST_TRIES, Found, Objects
from koinize.store.place import Names
from koinize.store.typed import typed

NAMES = "names.json"
MANIFESTS = "manifests"
PAYLOAD = "artifacts"
ORPHAN_SECONDS = 86400  # an attempt without a manifest whose writer still lives is younger

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Committed:
    """What the object of a manifest says."""

    attempt: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    manifest: str


class Bucket:
    """The artifacts and names under one URL, with copies under a `.koinize` (a `Place`)."""

    def __init__(self, home: Home, objects: Objects, most_copied: int) -> None:
        self.home, self.objects = home, objects
        self.unsent, self.cache = Folder(home), Cache(home.cache, most_copied)
        self._etags: dict[str, str] = {}  # of manifests, as the bucket gave them last
        self._written: dict[str, float] = {}  # when each was, of all that `ids` listed

    def where(self, artifact_id: str = "") -> str:
        """The address that its files begin with."""
        return "/".join([self.objects.url, PAYLOAD, *([artifact_id] if artifact_id else [])])

    def ids(self) -> set[str]:
        """Those that have a manifest, and those of this machine that are not sent yet."""
        self._etags, self._written = {}, {}
        for one in self.objects.listed(MANIFESTS):
            artifact_id = PurePosixPath(one.key).stem
            if IDENTITY.fullmatch(artifact_id):
                self._etags[artifact_id] = one.etag
                self._written[artifact_id] = one.written
        return {*self._written, *self.unsent.ids()}

    def manifest(self, artifact_id: str) -> bytes | None:
        """What was committed to the bucket, which wins over what was not sent yet."""
        found = self._committed(artifact_id)
        return found.manifest.encode() if found else self.unsent.manifest(artifact_id)

    def files(self, artifact_id: str) -> Path:
        """A copy on this machine, brought here unless there is one."""
        found = self._committed(artifact_id)
        if found is None:
            return self.unsent.files(artifact_id)
        return self.cache.copy(artifact_id, found.attempt) or self._bring(artifact_id, found)

    def again(self, artifact_id: str) -> bool:
        """Drop the copy: the bucket may have it right, or have another by now."""
        self.cache.forget(artifact_id)
        self._etags.pop(artifact_id, None)
        return self._committed(artifact_id) is not None

    def commit(self, folder: Path, artifact_id: str) -> None:
        """Keep it here, then send it: without a connection it waits for `settle`."""
        self.unsent.commit(folder, artifact_id)
        self._send(artifact_id)

    def remove(self, artifact_id: str) -> None:
        """Remove the manifest, and only then the files, which nobody can find any more."""
        try:
            found = self._committed(artifact_id)
        except BrokenError:
            found = None  # nobody knows which files it had: they become orphans
        self.objects.delete([_key(artifact_id)])
        if found:
            self._delete_attempt(artifact_id, found.attempt)
        self._forget(artifact_id)
        self.unsent.remove(artifact_id)

    def committed(self, artifact_id: str) -> float:
        """When its manifest was written, by the clock of the bucket."""
        return self._written.get(artifact_id) or self.unsent.committed(artifact_id)

    def size(self, artifact_id: str) -> int:
        """The bytes of its files, as recorded; 0 where that cannot be read."""
        with suppress(BrokenError):
            if content := self.manifest(artifact_id):
                recorded = read_manifest(content, artifact_id, self.where(artifact_id))
                return sum(entry["bytes"] for entry in recorded.files.values())
        return 0

    def names(self) -> Names | None:
        """What the object of names says."""
        return _names(self.objects.get(NAMES), f"{self.objects.url}/{NAMES}")

    def rename(self, change: Callable[[Names | None], Names]) -> None:
        """Compare and swap: where another machine was quicker, change what it wrote."""
        where = f"{self.objects.url}/{NAMES}"
        for _ in range(MOST_TRIES):
            found = self.objects.get(NAMES)
            before = _names(found, where)
            names = change(before)
            if names == (before or {}):
                return
            content = json.dumps(names, indent=0, sort_keys=True).encode()
            if found is None and self.objects.create(NAMES, content).content == content:
                return
            if found is not None and self.objects.replace(NAMES, content, found.tag):
                return
        raise InputError("is written by others all the time", where=where, remedy="run again")

    def settle(self) -> None:
        """See that the bucket can be written, and send what was kept here only."""
        self.objects.overwrite("writable", b"")
        for artifact_id in sorted(self.unsent.ids()):
            with suppress(BrokenError):  # whoever opens it will say so
                if self._committed(artifact_id) is not None:
                    self.unsent.remove(artifact_id)
                elif content := self.unsent.manifest(artifact_id):
                    folder = self.unsent.files(artifact_id)
                    recorded = read_manifest(content, artifact_id, str(folder))
                    if not wrong_file(recorded, folder):
                        self._send(artifact_id)
        if (names := self.unsent.names()) is not None:
            self.rename(lambda written: {**names, **(written or {})})
            self.home.names.unlink()

    def orphans(self) -> list[str]:
        """ID/ATTEMPT of what was never finished and is older than a day; lists every object."""
        attempts: dict[tuple[str, str], float] = {}
        for one in self.objects.listed(PAYLOAD):
            match PurePosixPath(one.key).parts:
                case (_, artifact_id, attempt, _, *_):
                    last = attempts.get((artifact_id, attempt), 0.0)
                    attempts[artifact_id, attempt] = max(one.written, last)
        old = sorted(one for one, at in attempts.items() if time.time() - at > ORPHAN_SECONDS)
        return ["/".join(one) for one in old if not self._is_read(*one)]

    def remove_orphans(self) -> None:
        """Remove them."""
        for orphan in map(PurePosixPath, self.orphans()):
            self._delete_attempt(*orphan.parts)

    def _is_read(self, artifact_id: str, attempt: str) -> bool:
        try:
            found = self._committed(artifact_id)
        except BrokenError:
            return True  # perhaps: nobody can tell
        return found is not None and found.attempt == attempt

    def _send(self, artifact_id: str) -> None:
        """Upload the files as a new attempt, then say so, unless somebody has before.

        The first writer's artifact is everybody's: where that is another one, ours goes.
        """
        folder, attempt = self.unsent.files(artifact_id), secrets.token_hex(8)
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        for name in read_manifest(text.encode(), artifact_id, str(folder)).files:
            self.objects.upload(f"{PAYLOAD}/{artifact_id}/{attempt}/{name}", folder / name)
        content = json.dumps({"attempt": attempt, "manifest": text}).encode()
        standing = self.objects.create(_key(artifact_id), content)
        self._learn(artifact_id, standing)
        if standing.content == content:
            self.cache.keep(folder, artifact_id, attempt)
        else:
            self._delete_attempt(artifact_id, attempt)
            self.unsent.remove(artifact_id)

    def _bring(self, artifact_id: str, found: _Committed) -> Path:
        recorded = self._read(artifact_id, found)
        with temporary_folder(self.home.temporary) as folder:
            for name in recorded.files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                key = f"{PAYLOAD}/{artifact_id}/{found.attempt}/{name}"
                self.objects.download(key, folder / name)  # what is missing, the reader will miss
            return self.cache.keep(folder, artifact_id, found.attempt)

    def _read(self, artifact_id: str, found: _Committed) -> Manifest:
        return read_manifest(found.manifest.encode(), artifact_id, self.where(artifact_id))

    def _committed(self, artifact_id: str) -> _Committed | None:
        """What the bucket says of an artifact. Raises BrokenError for what makes no sense.

        One request, or none where it said so before and the listing has the same ETag.
        """
        known = self.cache.remembered(artifact_id)
        etag = known.tag.get("e_tag") if known else None
        found = known
        if not etag or self._etags.get(artifact_id) != etag:
            found = self.objects.get(_key(artifact_id), known)
        if found is None:
            self._forget(artifact_id)
            return None
        if found is not known or artifact_id not in self._etags:
            self._learn(artifact_id, found)
        try:
            return typed(_Committed, parse_json(found.content))
        except (ValueError, KoinizeError):
            raise broken(self.where(artifact_id), f"its {MANIFEST} cannot be read") from None

    def _learn(self, artifact_id: str, found: Found) -> None:
        self._etags[artifact_id] = found.tag.get("e_tag", "")
        self.cache.remember(artifact_id, found)

    def _forget(self, artifact_id: str) -> None:
        self._etags.pop(artifact_id, None)
        self.cache.forget(artifact_id)

    def _delete_attempt(self, artifact_id: str, attempt: str) -> None:
        under = self.objects.listed(f"{PAYLOAD}/{artifact_id}/{attempt}")
        self.objects.delete([one.key for one in under])


def _key(artifact_id: str) -> str:
    return f"{MANIFESTS}/{artifact_id}.json"


def _names(found: Found | None, where: str) -> Names | None:
    """The names in an object; None where there is none, or, which is said, where it has none."""
    if found is None:
        return None
    try:
        return typed(Names, parse_json(found.content))
    except (ValueError, KoinizeError):
        logger.warning("%s cannot be read; the newest artifact of each name is taken", where)
        return None
