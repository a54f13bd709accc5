"""One HTTP exchange, bounded in bytes and in time: what is sent, and what comes back, or why not.

What each failure means, and what to do about it, is for whoever asks to say: the errors here say
what happened and name the kind of it.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from koinize.files import MEGABYTE
from koinize.shown import line

MOST_DIGITS = 15  # of a stated length; Python reads no number of thousands of them
CHUNK = 64 * 1024


class ExchangeError(Exception):
    """There is no answer that could be used: what happened, as a predicate of the server."""


class UnreachableError(ExchangeError):
    """Nobody answers there, or not in HTTP."""


class SlowError(ExchangeError):
    """The whole answer did not come in time."""


class TooLargeError(ExchangeError):
    """The answer has more bytes than are read of it."""


class BrokeOffError(ExchangeError):
    """The answer ended before its end."""


class StatusError(ExchangeError):
    """The answer has another status than success. `content`: what can be read of its body."""

    def __init__(self, status: int, reason: str, location: str, content: bytes | None) -> None:
        super().__init__(f"refuses with status {status}: {line(reason)}")
        self.status, self.reason, self.location = status, reason, location
        self.content = content


def exchange(
    url: str, body: bytes | None, headers: Mapping[str, str], *, timeout: float, largest: int
) -> bytes:
    """What the server answers: to a POST of `body`, to a GET without one.

    `timeout`: seconds for all of it; `largest`: bytes of an answer. Follows no redirection.
    Raises ExchangeError.
    """
    until = time.monotonic() + timeout
    try:
        request = urllib.request.Request(url, body, dict(headers))  # noqa: S310 - of the caller
        with _opener(url, until).open(request, timeout=timeout) as response:
            return _read(response, largest)
    except urllib.error.HTTPError as error:
        with error:
            raise _status(error, largest) from None
    except TimeoutError:
        raise _slow(timeout) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _slow(timeout) from None
        raise _unreachable(error.reason) from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise _unreachable(error) from None


def kind_of(content: bytes) -> str:
    """What an answer is that is not what was asked for."""
    head = content[:200].lstrip().lower()
    return "HTML" if head.startswith((b"<!doctype", b"<html")) else "something else"


def _opener(url: str, until: float) -> urllib.request.OpenerDirector:
    # A proxy of the environment leads out of this machine, never to a server on it.
    own = [urllib.request.ProxyHandler({})] if _is_here(url) else []
    return urllib.request.build_opener(_Stay, _Http(until), _Https(until), *own)


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _status(error: urllib.error.HTTPError, largest: int) -> StatusError:
    try:
        content = _read(error, largest)
    except (ExchangeError, OSError, http.client.HTTPException):
        content = None
    location = error.headers.get("Location", "elsewhere")
    return StatusError(error.code, str(error.reason), location, content)


def _unreachable(error: object) -> UnreachableError:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UnreachableError(f"cannot be reached: {said}")


def _slow(timeout: float) -> SlowError:
    return SlowError(f"gave no whole answer within {timeout:g} s")


def _read(response: http.client.HTTPResponse | urllib.error.HTTPError, largest: int) -> bytes:
    """The whole body. Raises ExchangeError where it is too large or broke off, TimeoutError."""
    stated = response.headers.get("Content-Length") or ""
    if stated.isdecimal() and len(stated) > MOST_DIGITS:
        raise _too_large(largest)
    length = int(stated) if stated.isdecimal() else None
    if length is not None and length > largest:
        raise _too_large(largest)
    parts: list[bytes] = []
    size = 0
    while length is None or size < length:
        try:
            part = response.read1(CHUNK)
        except http.client.IncompleteRead:
            raise _broke_off(size, None) from None
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > largest:
            raise _too_large(largest)
    if length is not None and size < length:
        raise _broke_off(size, length)
    return b"".join(parts)


def _too_large(largest: int) -> TooLargeError:
    return TooLargeError(f"answers with more than {largest // MEGABYTE} MB")


def _broke_off(size: int, length: int | None) -> BrokeOffError:
    of = f" of {length}" if length else ""
    return BrokeOffError(f"broke off its answer after {size}{of} bytes")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which would take what is sent elsewhere."""

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
