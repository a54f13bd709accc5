"""JSON to and from a server over HTTP: bounded in bytes and in time, and every failure in words."""

from __future__ import annotations

import http.client
import io
import ipaddress
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from koinize.errors import InputError
from koinize.files import MEGABYTE, parse_json
from koinize.shown import line

LARGEST = 16 * MEGABYTE  # of an answer: twenty tokens' names take a few kilobytes
MOST_DIGITS = 15  # of a stated length; Python reads no number of thousands of them
CHUNK = 64 * 1024
BUSY = (429, 502, 503, 504)
NO_KEY = (401, 403)
TRIES = 4


class RefusedError(InputError):
    """The server understood HTTP and would not do what it was asked: `status` says how."""

    def __init__(self, status: int, said: str, where: str) -> None:
        super().__init__(f"refuses with status {status}: {said}", where=where)
        self.status, self.said = status, said

    def __reduce__(self) -> tuple[object, ...]:
        return RefusedError, (self.status, self.said, self.where)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which would take the key elsewhere."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - as urllib's
        """None: the status is then an error like any other."""


class _Until(io.RawIOBase):
    """What comes from a socket, until a time: its own timeout begins again with every byte."""

    def __init__(self, source: socket.socket, until: float) -> None:
        self._source, self._until = source, until
        self._bytes = source.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, into: Any) -> int | None:  # noqa: ANN401 - any buffer
        """As of any raw stream. Raises TimeoutError."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._source.settimeout(left)
        return self._bytes.readinto(into)

    def close(self) -> None:
        """Close the socket's stream, and with it the socket."""
        self._bytes.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer whose status, headers and body all have to come by `until`."""

    def __init__(self, source: socket.socket, *given: Any, until: float, **more: Any) -> None:  # noqa: ANN401 - as http.client's
        super().__init__(source, *given, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_Until(source, until))


class _Http(urllib.request.HTTPHandler):
    """Opens connections whose answers end in time. Connecting, the handshake of TLS and sending
    are bounded by the connection's own timeout, each as a whole.
    """

    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = until

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """As urllib's."""
        return self.do_open(partial(_connection, http.client.HTTPConnection, self._until), request)


class _Https(urllib.request.HTTPSHandler):
    """The same over TLS."""

    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = until

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """As urllib's."""
        return self.do_open(partial(_connection, http.client.HTTPSConnection, self._until), request)


def _connection(
    kind: type[http.client.HTTPConnection], until: float, host: str, *, timeout: float
) -> http.client.HTTPConnection:
    found = kind(host, timeout=timeout)
    found.response_class = partial(_Response, until=until)  # type: ignore[assignment] # is called
    return found


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
        until = time.monotonic() + self.timeout
        try:
            request = urllib.request.Request(where, body, self._headers())  # noqa: S310 - checked
            with self._opener(until).open(request, timeout=self.timeout) as response:
                return _read(response, where)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, where) from None
        except TimeoutError:
            raise self._slow(where) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._slow(where) from None
            raise self._unreachable(error.reason, where) from None
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise self._unreachable(error, where) from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def _opener(self, until: float) -> urllib.request.OpenerDirector:
        # A proxy of the environment leads out of this machine, never to a server on it.
        own = [urllib.request.ProxyHandler({})] if _is_here(self.url) else []
        return urllib.request.build_opener(_Stay, _Http(until), _Https(until), *own)

    def _refusal(self, error: urllib.error.HTTPError, where: str) -> InputError:
        if error.code in NO_KEY:
            what = "refuses the key" if self.key else "wants a key"
            remedy = "set OPENAI_API_KEY, or give --api-key"
            return InputError(f"{what} (status {error.code})", where=where, remedy=remedy)
        if 300 <= error.code < 400:
            there = error.headers.get("Location", "elsewhere")
            what = f"redirects to {line(self.quoted(there))}"
            return InputError(what, where=where, remedy="give that server's own address")
        try:
            said = _complaint(_read(error, where))
        except (InputError, OSError, http.client.HTTPException):
            said = str(error.reason)
        return RefusedError(error.code, line(self.quoted(said), 400), where)

    def _unreachable(self, error: object, where: str) -> InputError:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        what = f"cannot be reached: {line(self.quoted(said))}"
        return InputError(what, where=where, remedy="start the server, or give its address")

    def _slow(self, where: str) -> InputError:
        what = f"gave no whole answer within {self.timeout:g} s"
        return InputError(what, where=where, remedy="try again, or give more seconds by --timeout")


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


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(response: http.client.HTTPResponse | urllib.error.HTTPError, where: str) -> bytes:
    """The whole body. Raises InputError where it is too large or broke off, TimeoutError."""
    stated = response.headers.get("Content-Length") or ""
    if stated.isdecimal() and len(stated) > MOST_DIGITS:
        raise _too_large(where)
    length = int(stated) if stated.isdecimal() else None
    if length is not None and length > LARGEST:
        raise _too_large(where)
    parts: list[bytes] = []
    size = 0
    while length is None or size < length:
        try:
            part = response.read1(CHUNK)
        except http.client.IncompleteRead:
            raise _broke_off(size, None, where) from None
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise _too_large(where)
    if length is not None and size < length:
        raise _broke_off(size, length, where)
    return b"".join(parts)


def _parsed(content: bytes, where: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return parse_json(content)
    except (ValueError, RecursionError):
        pass
    head = content[:200].lstrip().lower()
    kind = "HTML" if head.startswith((b"<!doctype", b"<html")) else "something else"
    raise InputError(
        f"answered with {kind} where JSON belongs",
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


def _too_large(where: str) -> InputError:
    what = f"answers with more than {LARGEST // MEGABYTE} MB"
    return InputError(what, where=where, expected="a few kilobytes of JSON")


def _broke_off(size: int, length: int | None, where: str) -> InputError:
    of = f" of {length}" if length else ""
    what = f"broke off its answer after {size}{of} bytes"
    return InputError(what, where=where, remedy="try again, and look into the server's log")
