"""Two things in a time stamp's answer that rfc3161-client does not do, by the rules of DER.

The certificates are a set, which DER sorts; `openssl ts`, and whatever authority runs it, sends
them as they are configured, and the library takes DER alone. Nothing signs their order. And the
token names the certificate that it is by, by a digest under its signature (ESSCertID of RFC 5035,
asked for by RFC 3161, section 2.4.1): nobody else compares that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

CERTIFICATES = 0xA0  # the tag [0] of SignedData, RFC 5652, section 5.1
ATTRIBUTES = 0xA0  # and of SignerInfo, section 5.3: those that are signed
SEQUENCE, OCTETS = 0x30, 0x04
_NAMES = bytes.fromhex("2a864886f70d01091002")  # 1.2.840.113549.1.9.16.2, of attributes
DEFAULTS = {_NAMES + b"\x0c": "sha1", _NAMES + b"\x2f": "sha256"}
"""The attribute signingCertificate and its version 2, with the hash function where none is said."""
_HASHES = bytes.fromhex("6086480165030402")  # 2.16.840.1.101.3.4.2
HASHES = {_HASHES + b"\x01": "sha256", _HASHES + b"\x02": "sha384", _HASHES + b"\x03": "sha512"}
Part = tuple[int, int, int, int]
"""Of one value in some bytes: its tag, where it begins, where what it holds begins, where it ends.
"""


def sorted_certificates(answer: bytes) -> bytes:
    """The same answer with the certificates sorted; as it is where it is not built as one."""
    try:
        certificates = next(one for one in _signed(answer) if one[0] == CERTIFICATES)
        parts = sorted(answer[begin:end] for _, begin, _, end in _parts(answer, certificates))
    except (IndexError, StopIteration, ValueError):
        return answer
    return answer[: certificates[2]] + b"".join(parts) + answer[certificates[3] :]


def names(answer: bytes, certificate: bytes) -> bool:
    """Whether the token says that it is by this certificate, and by no other."""
    try:
        found = list(_named(answer))
    except (IndexError, KeyError, StopIteration, ValueError):
        return False
    return bool(found) and all(
        hashlib.new(kind, certificate).digest() == digest for kind, digest in found
    )


def _named(answer: bytes) -> Iterator[tuple[str, bytes]]:
    """The hash function and the digest of the certificate, for each attribute that names one."""
    *_, signers = _signed(answer)
    (signer,) = _parts(answer, signers)
    attributes = next(one for one in _parts(answer, signer) if one[0] == ATTRIBUTES)
    for attribute in _parts(answer, attributes):
        kind, values = _parts(answer, attribute)
        version = _inside(answer, kind)
        if version in DEFAULTS:
            (value,) = _parts(answer, values)
            first = next(_parts(answer, next(_parts(answer, value))))  # the others are its issuers
            own, *more = _parts(answer, first)
            function = DEFAULTS[version]
            if own[0] == SEQUENCE:  # version 2 may say which function it is
                function = HASHES[_inside(answer, next(_parts(answer, own)))]
                own = more[0]
            if own[0] != OCTETS:
                raise ValueError("there is no digest where one belongs")
            yield function, _inside(answer, own)


def _inside(text: bytes, part: Part) -> bytes:
    return text[part[2] : part[3]]


def _signed(answer: bytes) -> Iterator[Part]:
    """The parts of SignedData, the content of the ContentInfo in a TimeStampResp."""
    _, token = _parts(answer, _part(answer, 0, len(answer)))
    _, content = _parts(answer, token)
    (signed,) = _parts(answer, content)
    return _parts(answer, signed)


def _parts(text: bytes, whole: Part) -> Iterator[Part]:
    _, _, at, end = whole
    while at < end:
        part = _part(text, at, end)
        yield part
        at = part[3]


def _part(text: bytes, at: int, end: int) -> Part:
    """The value that begins there. Raises ValueError, IndexError where there is none."""
    tag, size, inside = text[at], text[at + 1], at + 2
    if size > 0x80:  # so many bytes of length follow
        inside += size - 0x80
        size = int.from_bytes(text[at + 2 : inside], "big")
    elif size == 0x80:
        raise ValueError("it has no length, which DER does not allow")
    if inside + size > end:
        raise ValueError("it is longer than what it is in")
    return tag, at, inside, inside + size
