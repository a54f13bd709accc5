"""The certificates of an answer in order, by DER that was written out by hand."""

from __future__ import annotations

import random

from koinize.ledger.der import sorted_certificates


def tlv(tag: int, *inside: bytes) -> bytes:
    """One value; lengths in the long form where there are more than 127 bytes."""
    content = b"".join(inside)
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def answer(*certificates: bytes) -> bytes:
    """As RFC 3161, section 2.4.2, and RFC 5652, section 5.1, have it; the rest is a number."""
    number = tlv(2, b"\x03")
    signed = tlv(0x30, number, tlv(0x31), tlv(0x30), tlv(0xA0, *certificates), tlv(0x31, number))
    token = tlv(0x30, tlv(6, b"*"), tlv(0xA0, signed))
    return tlv(0x30, tlv(0x30, tlv(2, b"\x00")), token)


SHORT, LONG, LONGER = tlv(0x30, b"b"), tlv(0x30, b"ab"), tlv(0x30, bytes(300))


def test_certificates_are_sorted_by_their_bytes_and_nothing_else_is_moved():
    """30 01 .. before 30 02 .. before 30 82 ..: the length decides before what is in them."""
    want = answer(SHORT, LONG, LONGER)
    assert sorted_certificates(answer(LONGER, LONG, SHORT)) == want
    assert sorted_certificates(answer(LONG, LONGER, SHORT)) == want
    assert sorted_certificates(want) == want
    assert sorted_certificates(answer()) == answer()


def test_what_is_no_answer_stays_as_it_is():
    whole = answer(LONGER, SHORT)
    endless = b"\x30\x80" + whole[4:] + b"\0\0"  # a length that BER knows and DER does not
    for other in (b"", b"\x30", b"<html>", tlv(0x30), whole[:-1], whole[:5], endless):
        assert sorted_certificates(other) == other
    chance = random.Random(3)
    for _ in range(2000):
        odd = bytearray(whole)
        odd[chance.randrange(len(odd))] = chance.randrange(256)
        assert sorted(sorted_certificates(bytes(odd))) == sorted(odd)
