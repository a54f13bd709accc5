"""The certificates of a time stamp's answer in the order that DER asks for.

They are a set, which DER sorts; `openssl ts`, and whatever authority runs it, sends them as they
are configured, and rfc3161-client takes DER alone. Nothing signs their order.
"""

from __future__ import annotations

from collections.abc import Iterator

CERTIFICATES = 0xA0  # the tag [0] of SignedData, RFC 5652, section 5.1
Part = tuple[int, int, int, int]
"""Of one value in some bytes: its tag, where it begins, where what it holds begins, where it ends.
"""


def sorted_certificates(answer: bytes) -> bytes:
    """The same answer with the certificates sorted; as it is where it is not built as one."""
    try:
        certificates = _certificates(answer)
        parts = sorted(answer[begin:end] for _, begin, _, end in _parts(answer, certificates))
    except (IndexError, StopIteration, ValueError):
        return answer
    return answer[: certificates[2]] + b"".join(parts) + answer[certificates[3] :]


def _certificates(answer: bytes) -> Part:
    """Where they are: TimeStampResp, its ContentInfo, whose content is SignedData."""
    _, token = _parts(answer, _part(answer, 0, len(answer)))
    _, content = _parts(answer, token)
    (signed,) = _parts(answer, content)
    return next(one for one in _parts(answer, signed) if one[0] == CERTIFICATES)


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
