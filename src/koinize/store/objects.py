"""Objects under one URL of an object store, by obstore: what they say, and what went wrong.

The only module that knows obstore. Whatever it raises becomes one message: what, where, what to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinize.errors import InputError
from koinize.files import LARGEST_RECORD

if TYPE_CHECKING:
    from obstore.store import ObjectStore

EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure"}
"""The schemes of URLs that are taken, and the extra of koinize that each needs."""

PART_BYTES = 16 << 20  # of a large file, in memory at once for each of these
PARTS_AT_ONCE = 4
MOST_TRIES = 20  # at a name that others write too

# A request that fails on the way is tried again for some seconds; what is refused is not.
RETRIES: dict[str, Any] = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(seconds=0.1),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}
# A large file may take as long as it likes, but not without a byte for a minute. An endpoint is
# without TLS where the environment names such a one.
CLIENT: dict[str, Any] = {
    "timeout": "86400s",
    "read_timeout": "60s",
    "connect_timeout": "10s",
    "allow_http": True,
}

# Where S3's credentials come from without boto3, which knows the profiles besides.
WITHOUT_PROFILE = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")

CODE = re.compile(r"<Code>(\w+)</Code>")
STATUS = re.compile(r"status code: (\d{3})")
NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}
INSTANCE = "169.254.169.254"  # asked for credentials where nothing else has any


@dataclass(frozen=True)
class Found:
    """What an object says, and the tag that it has as long as it says that."""

    content: bytes
    tag: dict[str, str]


@dataclass(frozen=True)
class Listed:
    """An object in a listing: its key, its ETag, and the Unix time at which it was written."""

    key: str
    etag: str
    written: float


class Objects:
    """The objects whose keys follow `url`. Every method may raise InputError."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def _store(self) -> ObjectStore:
        with _told(self.url):
            return _client(self.url)

    def get(self, key: str, known: Found | None = None) -> Found | None:
        """What it says; `known` itself where that is still so, None where there is no object."""
        from obstore.exceptions import NotModifiedError

        etag = known.tag.get("e_tag") if known else None
        with _told(self.url):
            try:
                found = self._store.get(key, options={"if_none_match": etag} if etag else None)
            except NotModifiedError:
                return known
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return None
            if found.meta["size"] > LARGEST_RECORD:
                raise InputError("is larger than any record", where=f"{self.url}/{key}")
            return Found(bytes(found.bytes()), _tag(found.meta))

    def create(self, key: str, content: bytes) -> Found:
        """Write it unless it is there; what stands there then, whoever wrote it.

        One small conditional request decides. It may meet the object that it wrote itself, when the
        answer to the first try was lost, so nobody trusts the refusal: what is there is read.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for _ in range(MOST_TRIES):
            with _told(self.url):
                try:
                    put = self._store.put(key, content, mode="create", use_multipart=False)
                    return Found(content, _tag(put))
                except (AlreadyExistsError, PreconditionError):
                    pass
            if found := self.get(key):  # else another writer is not done yet, or it was removed
                return found
        raise InputError("is written and removed by others all the time", where=f"{self.url}/{key}")

    def replace(self, key: str, content: bytes, tag: dict[str, str]) -> bool:
        """Write it where it still has this tag; False where somebody else was quicker."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with _told(self.url):
            try:
                self._store.put(key, content, mode=tag, use_multipart=False)  # type: ignore[arg-type]
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return False
            return True

    def overwrite(self, key: str, content: bytes) -> None:
        """Write it, whatever is there."""
        with _told(self.url):
            self._store.put(key, content, use_multipart=False)

    def upload(self, key: str, path: Path) -> None:
        """Write a file as an object, in parts where it is large, whatever is there."""
        with _told(self.url):
            self._store.put(key, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def download(self, key: str, path: Path) -> bool:
        """Write an object into a new file; False where there is no such object. Raises OSError."""
        with _told(self.url):
            try:
                found = self._store.get(key)
            except FileNotFoundError as error:
                _refuse_missing_bucket(error)
                return False
            with path.open("xb") as file:
                for chunk in found.stream(min_chunk_size=PART_BYTES):
                    file.write(chunk)
        return True

    def listed(self, prefix: str) -> list[Listed]:
        """The objects whose keys begin with this folder."""
        with _told(self.url):
            return [
                Listed(one["path"], one["e_tag"] or "", one["last_modified"].timestamp())
                for some in self._store.list(prefix, chunk_size=1000)
                for one in some
            ]

    def delete(self, keys: Sequence[str]) -> None:
        """Remove those of these objects that are there."""
        with _told(self.url):
            if keys:
                self._store.delete(list(keys))


@lru_cache
def _client(url: str) -> ObjectStore:
    """One for each process and URL, with its open connections."""
    scheme = url.partition(":")[0]
    try:
        from obstore.store import from_url

        return from_url(  # type: ignore[call-overload, no-any-return]
            url,
            retry_config=RETRIES,
            client_options=CLIENT,
            credential_provider=_profile() if scheme == "s3" else None,
        )
    except ImportError:
        raise InputError(
            "an object store needs a package that is not installed",
            where=url,
            remedy=f"run `pip install 'koinize[{EXTRAS[scheme]}]'`",
        ) from None


def _profile() -> Any:  # noqa: ANN401 - obstore has a type of its own for it
    """AWS credentials out of the usual profile, where the environment has none."""
    if any(os.environ.get(name) for name in WITHOUT_PROFILE):
        return None
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:
        return None
    except BotoCoreError:
        raise InputError(
            "the profile that AWS_PROFILE names, or what stands in it, cannot be used",
            where=os.environ.get("AWS_CONFIG_FILE", "~/.aws"),
            remedy="mend the profile, or name another one",
        ) from None


def _tag(meta: Any) -> dict[str, str]:  # noqa: ANN401 - obstore's types of an answer
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}


def _refuse_missing_bucket(error: Exception) -> None:
    """An object that is not there is an answer; a bucket that is not there is a mistake."""
    if (code := CODE.search(str(error))) and code[1] in NO_BUCKET:
        raise error


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Say what went wrong with the store in one sentence, none of whose words is a secret."""
    try:
        from obstore.exceptions import BaseError
    except ImportError:
        BaseError = ImportError  # type: ignore[misc, assignment] # `_client` says it
    try:
        yield
    except (BaseError, FileNotFoundError, PermissionError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a file on this machine
        raise _explained(str(error), url) from None


def _explained(text: str, url: str) -> InputError:
    code, status = CODE.search(text), STATUS.search(text)
    said = code[1] if code else f"status {status[1]}" if status else ""
    if said in NO_BUCKET:
        return InputError("there is no such bucket", where=url, remedy="create it, or mend the URL")
    if said in CLOCK:
        return InputError(
            "refuses requests of another time: the clock of this machine or the store's is wrong",
            where=url,
            remedy="set the clock right",
        )
    if INSTANCE in text:
        return InputError(
            "no credentials were found", where=url, remedy="docs/store.md says where they come from"
        )
    if status and status[1] in ("401", "403"):
        return InputError(
            f"refused the request ({said})",
            where=url,
            expected="credentials that may read, list, write and delete there",
            remedy="docs/store.md says where they come from; what was finished is kept here",
        )
    if "HTTP error" not in text and not said:
        return InputError(
            "cannot be used: the environment lacks what the store needs, or has it wrong",
            where=url,
            remedy="docs/store.md says what is read",
        )
    if said:
        return InputError(
            f"answered with an error ({said})", where=url, remedy="run again: nothing is lost"
        )
    return InputError(
        "cannot be reached",
        where=url,
        remedy="mend the connection or the endpoint and run again: what was finished is kept here",
    )
