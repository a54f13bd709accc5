"""YAML as values and places: YAML 1.2, UTF-8, and a clear word about everything else."""

from __future__ import annotations

import pytest

from koinize.errors import InputError
from koinize.spec import load
from koinize.spec.document import Document, dotted, read_document


@pytest.fixture
def read(tmp_path):
    def parse(text: str) -> Document:
        path = tmp_path / "koinize.yaml"
        path.write_text(text, encoding="utf-8")
        return read_document(path)

    return parse


def test_values_are_plain_and_every_one_has_its_place(read):
    document = read("a: 1\nb:\n  - x\n  - {c: 2.5}\n'd': [y, z]\n")
    assert document.values == {"a": 1, "b": ["x", {"c": 2.5}], "d": ["y", "z"]}
    assert [type(value) for value in (document.values, document.values["b"])] == [dict, list]
    assert document.places == {
        (): (1, 1),
        ("a",): (1, 1),
        ("b",): (2, 1),
        ("b", 0): (3, 5),
        ("b", 1): (4, 5),
        ("b", 1, "c"): (4, 6),
        ("d",): (5, 1),
        ("d", 0): (5, 7),
        ("d", 1): (5, 10),
    }
    assert document.where(("b", 1, "c")) == "koinize.yaml:4:6"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),  # Norwegian; false to YAML 1.1
        ("yes", "yes"),
        ("1e-3", 0.001),
        ("2.0e-2", 0.02),
        ("012", 12),
        ("1:30", "1:30"),  # not 90
        ("true", "true"),  # told apart from 1 by the specification, see `_scalar`
        ("'1'", "1"),
        ("2026-11-31", "2026-11-31"),  # no such day
        ("", None),
        ("~", None),
        ('"a\\tb"', "a\tb"),
    ],
)
def test_scalars_mean_what_they_do_in_yaml_1_2(read, written, value):
    found = read(f"a: {written}\n").values["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_text(read):
    assert read("no: a\n2: b\ntrue: c\n~: d\n").values == {
        "no": "a",
        "2": "b",
        "true": "c",
        "null": "d",
    }


def test_aliases_and_merge_keys(read):
    document = read("a: &x {r: 1}\nb: *x\nc: {<<: *x, s: 2}\n")
    assert document.values == {"a": {"r": 1}, "b": {"r": 1}, "c": {"r": 1, "s": 2}}
    assert document.places["c", "s"] == (3, 13)
    assert document.places["c", "r"] == (3, 4)  # where the mapping begins


def test_what_validation_adds_to_a_path_is_left_out(read):
    document = read("a: {b: [{c: 1}]}\n")
    assert document.path(("a", "union", "b", 0, 3, "c", "[key]")) == ("a", "b", 0, "c")
    assert document.path(("a", "missing")) == ("a",)


@pytest.mark.parametrize(
    ("path", "text"),
    [((), ""), (("a",), "a"), (("a", "b"), "a.b"), (("a", 0, "b", 1, 2), "a[0].b[1][2]")],
)
def test_dotted(path, text):
    assert dotted(path) == text


def test_a_byte_order_mark_is_no_part_of_the_text(loaded, good):
    assert loaded(f"\ufeff{good}").name == "small"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1 the file is empty; expected a mapping that begins with `koinize: 1`"),
        ("# notes\n", "1:1 the file is empty; expected a mapping that begins with `koinize: 1`"),
        ("- a\n", "1:1 the file holds no keys; expected a mapping that begins with `koinize: 1`"),
        ("text", "1:1 the file holds no keys; expected a mapping that begins with `koinize: 1`"),
        ("a: 1\nb: 2\na: 3\n", "3:1 key 'a' is given twice; keep one of the two"),
        ("a: {b: 1,\n  b: 2}\n", "2:3 key 'b' is given twice; keep one of the two"),
        (
            "a: [1\nb: 2\n",
            "2:2 this is not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'",
        ),
        (
            "a:\n\tb: 1\n",
            "2:1 this is not YAML: while scanning for the next token, "
            "found character '\\t' that cannot start any token",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "2:1 this is not YAML: expected a single document in the stream, "
            "but found another document",
        ),
        ("a: 1\nb: x\x07\n", "2:5 the character U+0007 is not allowed in YAML; remove it"),
        (b"a: \xff\n", "1:4 the byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: \xc3\xa9\xe9\n", "2:6 the byte 0xe9 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_what_is_no_yaml_mapping(refused, text, message):
    assert refused(text) == [f"koinize.yaml:{message}"]


def test_a_tag_that_its_value_does_not_fit(refused):
    assert refused("a: !!int x\n") == ["koinize.yaml:1:4 'x' is no !!int; remove the tag"]


def test_no_file(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path / "koinize.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/koinize.yaml there is no such file; "
        "run `koinize init` to write a first one, or name the folder of one"
    )


def test_a_folder(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path} cannot be read: Is a directory"
