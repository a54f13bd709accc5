"""Asking a time stamping authority over HTTP (RFC 3161, section 3.4)."""

from __future__ import annotations

from urllib.parse import urlsplit

from koinize.errors import InputError
from koinize.exchange import ExchangeError, StatusError, exchange
from koinize.files import MEGABYTE
from koinize.shown import line

TIMEOUT = 60.0  # seconds for the whole answer
LARGEST = MEGABYTE  # of an answer: a token with its certificates takes a few kilobytes
HEADERS = {
    "Content-Type": "application/timestamp-query",
    "Accept": "application/timestamp-reply",
}


def ask(url: str, request: bytes, *, timeout: float = TIMEOUT) -> bytes:
    """What the authority at this address answers. Raises InputError where it gives no answer."""
    _check(url)
    try:
        return exchange(url, request, HEADERS, timeout=timeout, largest=LARGEST)
    except StatusError as error:
        if 300 <= error.status < 400:
            what = f"redirects to {line(error.location)}"
            raise InputError(what, where=url, remedy="give that address itself") from None
        raise InputError(
            str(error), where=url, expected="the address of a time stamping authority"
        ) from None
    except ExchangeError as error:
        raise InputError(
            line(str(error)),
            where=url,
            remedy="try again, give another authority, or take the question there by "
            "`koinize ledger stamp --query FILE`",
        ) from None


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(
            f"'{line(url)}' is no address of a time stamping authority",
            expected="such as http://timestamp.digicert.com",
        )
    if parts.username or parts.password:
        raise InputError("the address holds a name or password", where=url)
