"""Identity is content: equal values and only they share a digest."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.digest import digest, file_digest, short

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def typed(value):
    """An oracle for equality in which 1, 1.0, True and "1" are four values."""
    if isinstance(value, dict):
        return "mapping", frozenset((key, typed(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(typed(item) for item in value)
    return type(value).__name__, value


def test_the_bytes_by_hand():
    """Tag, 8-byte big-endian length or count, content. Changing this orphans every store."""
    eight = b"\0\0\0\0\0\0\0"
    by_hand = (
        b"M" + eight + b"\x03"
        b"S" + eight + b"\x01" + b"a"
        b"B" + eight + b"\x01" + b"\x01"
        b"S" + eight + b"\x01" + b"b"
        b"L" + eight + b"\x04"
        b"I" + eight + b"\x02" + b"-7"
        b"S" + eight + b"\x02" + b"\xc3\xa9"
        b"N" + eight + b"\x00"
        b"F" + eight + b"\x08" + b"\x3f\xf8\0\0\0\0\0\0"
        b"S" + eight + b"\x01" + b"c"
        b"Y" + eight + b"\x01" + b"\xff"
    )  # fmt: skip
    assert digest({"c": b"\xff", "b": [-7, "é", None, 1.5], "a": True}) == (
        hashlib.sha256(by_hand).hexdigest()
    )


@given(VALUES, VALUES)
def test_values_share_a_digest_exactly_when_they_are_equal(one, other):
    assert (digest(one) == digest(other)) == (typed(one) == typed(other))


@given(st.lists(st.sampled_from(["", "a", "S", 0, 1, 0.0, 1.0, True, False, None, b"", [], {}])))
def test_neighbours_are_told_apart(items):
    """Small values that look alike, as a whole, cut in two, and nested."""
    shapes = [items, [items], [items[:1], items[1:]], {"": items}]
    forms = {repr(typed(shape)) for shape in shapes}
    assert len({digest(shape) for shape in shapes}) == len(forms)


@given(st.dictionaries(st.text(max_size=3), SCALARS, max_size=5), st.randoms())
def test_the_order_of_keys_does_not_matter(mapping, random):
    items = list(mapping.items())
    random.shuffle(items)
    assert digest(dict(items)) == digest(mapping)


def test_equal_values_in_other_clothes():
    assert digest((1, 2)) == digest([1, 2])
    assert digest(MappingProxyType({"a": 1})) == digest({"a": 1})
    assert digest(-0.0) == digest(0.0)
    assert digest(Path("a/b")) != digest("a/b")


def test_text_that_is_no_unicode_has_a_digest():
    """Names of files may be any bytes; Python writes those as lone surrogates."""
    assert len({digest("\udcff"), digest(Path("\udcff")), digest("\udcfe")}) == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1}, "a value of type set has no canonical bytes"),
        (date(2026, 1, 2), "a value of type date has no canonical bytes"),
        ([object()], "a value of type object has no canonical bytes"),
        ({1: 2}, "only string keys have a digest, not int"),
        ({"a": 1, None: 2}, "only string keys have a digest, not NoneType"),
    ],
)
def test_what_has_no_digest(value, message):
    with pytest.raises(TypeError) as caught:
        digest(value)
    assert str(caught.value) == message


@pytest.mark.parametrize("size", [0, 1, 1 << 18, (1 << 18) + 1])
def test_a_file_has_the_plain_digest_of_its_bytes(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert file_digest(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()


def test_short():
    assert short("0123456789abcdef") == "0123456789ab"
