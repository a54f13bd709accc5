"""Identity is content: canonical tagged bytes -> SHA-256. The only hashing in koinize.

Values are encoded with a type tag and a length, so no two different values share their bytes:
`"1"`, `1`, `1.0`, `True`, `["1"]` and `["1", ""]` all differ. Mappings are sorted by key; a list
and a tuple of the same values are one value, since JSON and YAML know only one of the two.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path

from koinize.files import open_regular

_LENGTH = struct.Struct(">Q").pack


def digest(value: object) -> str:
    """SHA-256, as 64 hex digits, of a plain value.

    Plain means None, bool, int, float, str, bytes, Path, and lists, tuples and string-keyed
    mappings of plain values. Raises TypeError for anything else (sets have no order to rely on).
    """
    pieces: list[bytes] = []
    _encode(value, pieces.append)
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def piecewise() -> hashlib._Hash:
    """A SHA-256 of no bytes yet: `update` adds some, `hexdigest` gives the 64 hex digits."""
    return hashlib.sha256()


def bytes_digest(content: bytes) -> str:
    """SHA-256, as 64 hex digits, of bytes."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256, as 64 hex digits, of a regular file's bytes. Raises OSError."""
    with open_regular(path) as file:
        return open_file_digest(file)


def open_file_digest(file: BufferedReader) -> str:
    """SHA-256, as 64 hex digits, of an open file's bytes. Raises OSError."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def short(identity: str) -> str:
    """The first 12 digits: how a digest is shown to people and used in folder names."""
    return identity[:12]


def _encode(value: object, add: Callable[[bytes], None]) -> None:
    if type(value) is str:  # nearly everything that has a digest: tens of thousands in a plan
        _encode_text(value, add)
    elif isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"only string keys have a digest, not {type(odd[0]).__name__}")
        add(b"M" + _LENGTH(len(value)))
        for key in sorted(value):
            _encode_text(key, add)
            _encode(value[key], add)
    elif isinstance(value, list | tuple):
        add(b"L" + _LENGTH(len(value)))
        for item in value:
            _encode(item, add)
    else:
        add(_encode_scalar(value))


def _encode_text(text: str, add: Callable[[bytes], None]) -> None:
    payload = text.encode("utf-8", "surrogatepass")
    add(b"S" + _LENGTH(len(payload)))
    add(payload)


def _tagged(tag: bytes, payload: bytes) -> bytes:
    return tag + _LENGTH(len(payload)) + payload


def _encode_scalar(value: object) -> bytes:
    match value:
        case None:
            return _tagged(b"N", b"")
        case bool():  # before int: a bool is an int to Python
            return _tagged(b"B", b"\x01" if value else b"\x00")
        case int():
            return _tagged(b"I", str(value).encode())
        case float():
            # + 0.0 makes -0.0 and 0.0 one value, as == says they are.
            return _tagged(b"F", struct.pack(">d", value + 0.0))
        case str():
            return _tagged(b"S", value.encode("utf-8", "surrogatepass"))
        case Path():
            return _tagged(b"P", value.as_posix().encode("utf-8", "surrogatepass"))
        case bytes():
            return _tagged(b"Y", value)
        case _:
            raise TypeError(f"a value of type {type(value).__name__} has no canonical bytes")
