"""JSON to and from a server over HTTP: bounded in bytes and in time, and every failure in words."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from koinize.errors import InputError
from koinize.exchange import (
    BrokeOffError,
    ExchangeError,
    SlowError,
    StatusError,
    TooLargeError,
    UnreachableError,
    exchange,
    kind_of,
)
from koinize.files import MEGABYTE, parse_json
from koinize.shown import line

LARGEST = 16 * MEGABYTE  # of an answer: twenty tokens' names take a few kilobytes
BUSY = (429, 502, 503, 504)
NO_KEY = (401, 403)
TRIES = 4
REMEDIES: Mapping[type[ExchangeError], str] = {
    UnreachableError: "start the server, or give its address",
    SlowError: "try again, or give more seconds by --timeout",
    BrokeOffError: "try again, and look into the server's log",
}


class RefusedError(InputError):
    """The server understood HTTP and would not do what it was asked: `status` says how."""

    def __init__(self, status: int, said: str, where: str) -> None:
        super().__init__(f"refuses with status {status}: {said}", where=where)
        self.status, self.said = status, said

    def __reduce__(self) -> tuple[object, ...]:
        return RefusedError, (self.status, self.said, self.where)


@dataclass(frozen=True)
class Client:
    """Asks one server. `timeout`: seconds for one answer, all of it; `pause`: seconds before the
    first of the other tries at a server that is busy, twice as many before each further one.
    """

    url: str
    key: str = ""
    timeout: float = 60.0
    pause: float = 1.0

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """The JSON under this path. Raises InputError for whatever is none."""
        return _parsed(self._ask(path, None), self.url + path)

    def post(self, path: str, body: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
        """What the server answers to this JSON. Raises InputError for whatever is none."""
        return _parsed(self._ask(path, json.dumps(body).encode()), self.url + path)

    def tell(self, path: str, body: Mapping[str, object]) -> None:
        """Post this JSON; nothing is made of what the server says when all is well."""
        self._ask(path, json.dumps(body).encode())

    def quoted(self, said: str) -> str:
        """What the server said, with `***` where it says the key."""
        return said.replace(self.key, "***") if self.key else said

    def _ask(self, path: str, body: bytes | None) -> bytes:
        for attempt in range(1, TRIES + 1):
            try:
                return self._once(path, body)
            except RefusedError as error:
                if error.status not in BUSY or attempt == TRIES:
                    raise
            time.sleep(self.pause * 2 ** (attempt - 1))
        raise AssertionError("the last try returns or raises")

    def _once(self, path: str, body: bytes | None) -> bytes:
        where = self.url + path
        try:
            return exchange(where, body, self._headers(), timeout=self.timeout, largest=LARGEST)
        except StatusError as error:
            raise self._refusal(error, where) from None
        except TooLargeError as error:
            raise InputError(str(error), where=where, expected="a few kilobytes of JSON") from None
        except ExchangeError as error:
            what, remedy = line(self.quoted(str(error))), REMEDIES[type(error)]
            raise InputError(what, where=where, remedy=remedy) from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def _refusal(self, error: StatusError, where: str) -> InputError:
        if error.status in NO_KEY:
            what = "refuses the key" if self.key else "wants a key"
            remedy = "set OPENAI_API_KEY, or give --api-key"
            return InputError(f"{what} (status {error.status})", where=where, remedy=remedy)
        if 300 <= error.status < 400:
            what = f"redirects to {line(self.quoted(error.location))}"
            return InputError(what, where=where, remedy="give that server's own address")
        said = error.reason if error.content is None else _complaint(error.content)
        return RefusedError(error.status, line(self.quoted(said), 400), where)


def address(text: str) -> str:
    """The address under which the server's `/v1` lies. Raises InputError for what is none."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or any(character.isspace() for character in text):
        raise InputError(
            f"'{line(text)}' is no address of a server", expected="such as http://localhost:8000/v1"
        )
    if parts.username or parts.password:
        raise InputError(
            "the address holds a name or password",
            where=text,
            remedy="give the key by OPENAI_API_KEY or --api-key",
        )
    path = PurePosixPath(parts.path or "/")
    path = path if path.name == "v1" else path / "v1"
    return urlunsplit((parts.scheme, parts.netloc, str(path), "", ""))


def check_key(key: str) -> str:
    """The key without white space around it. Raises InputError for what no header can hold."""
    found = key.strip()
    if not all(" " < character < "\x7f" for character in found):
        raise InputError(
            "the key has characters that no key has",
            where="OPENAI_API_KEY or --api-key",
            expected="letters, digits and signs of ASCII, without spaces",
        )
    return found


def _parsed(content: bytes, where: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return parse_json(content)
    except (ValueError, RecursionError):
        pass
    raise InputError(
        f"answered with {kind_of(content)} where JSON belongs",
        where=where,
        remedy="give the address of the server's API, such as http://localhost:8000/v1",
    )


def _complaint(content: bytes) -> str:
    """What a server says is wrong: the message in its JSON, in any of the usual places."""
    try:
        found = parse_json(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")
    for name in ("error", "message", "detail", "error_message"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
