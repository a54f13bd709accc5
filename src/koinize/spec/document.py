"""A YAML file as plain values, with the line and column of every key and item in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from koinize.errors import InputError, ManyErrors
from koinize.files import MEGABYTE, read_bytes
from koinize.spec.bounded import refuse_unbounded

LARGEST = MEGABYTE  # of the file: two hundred languages with all that can be said take a tenth
LARGEST_NUMBER = (1 << 63) - 1
VERSION_LINE = re.compile(r"^%YAML[^\n]*", re.MULTILINE)
BEGINS = "`koinize: 1`"
WRITE_ONE = "run `koinize init` to write a first one, or name the folder of one"
UNUSABLE = re.compile("[\0\ud800-\udfff]")

Loc = tuple[str | int, ...]
"""Keys and indexes that lead to a value, from the top."""


@dataclass(frozen=True)
class Document:
    """The values of a file: dicts with text keys, lists and scalars. `places` counts from 1."""

    name: str
    values: dict[str, Any]
    places: Mapping[Loc, tuple[int, int]]

    def path(self, loc: Loc) -> Loc:
        """The steps of a validator's location that stand in the file; it adds some of its own."""
        path: Loc = ()
        for step in loc:
            if (*path, step) in self.places:
                path = (*path, step)
        return path

    def where(self, path: Loc) -> str:
        """`FILE:LINE:COLUMN` of a value that stands in the file."""
        line, column = self.places[path]
        return f"{self.name}:{line}:{column}"


def dotted(path: Loc) -> str:
    """A path as people write it: `merge.candidates[0].density`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_document(path: Path, begins: str = BEGINS, remedy: str = WRITE_ONE) -> Document:
    """The file's content. Raises InputError for what is no YAML 1.2 mapping in UTF-8.

    begins: what a message says such a file begins with; remedy: what to do where there is none.
    """
    root = _parse(_text(path, remedy), path.name)
    if not isinstance(root, CommentedMap):
        raise InputError(
            "the file is empty" if root is None else "the file holds no keys",
            where=f"{path.name}:1:1",
            expected=f"a mapping that begins with {begins}",
        )
    places: dict[Loc, tuple[int, int]] = {(): (1, 1)}
    document = Document(path.name, _plain(root, (), places), places)
    if odd := list(_unusable(document, document.values, ())):
        raise odd[0] if len(odd) == 1 else ManyErrors(odd)
    return document


def _unusable(document: Document, value: object, path: Loc) -> Iterator[InputError]:
    """Numbers and texts that nothing could be done with, whatever the key."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for step, part in parts:
            if isinstance(step, str) and UNUSABLE.search(step):
                yield _odd_text(document, (*path, step), "the key")
            yield from _unusable(document, part, (*path, step))
    elif isinstance(value, str) and UNUSABLE.search(value):
        yield _odd_text(document, path, dotted(path))
    elif type(value) is int and abs(value) > LARGEST_NUMBER:
        what = f"{dotted(path)}: the number is too large"
        expected = f"at most {LARGEST_NUMBER}"
        yield InputError(what, where=document.where(path), expected=expected)


def _odd_text(document: Document, path: Loc, what: str) -> InputError:
    return InputError(
        f"{what} holds a null character or half of one (a lone surrogate)",
        where=document.where(path),
        remedy="remove it",
    )


def _text(path: Path, remedy: str) -> str:
    try:
        content = read_bytes(path, LARGEST)
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path), remedy=remedy) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        where = f"{path.name}:{line}:{column}"
        what = f"the byte 0x{content[error.start]:02x} is not UTF-8"
        raise InputError(what, where=where, remedy="save the file as UTF-8") from error


def _parse(text: str, name: str) -> object:
    yaml = YAML(typ="rt")
    yaml.Constructor = _Constructor
    try:
        text = as_current(text)
        refuse_unbounded(text, name)
        return yaml.load(text)
    except DuplicateKeyError as error:
        key = str(error.problem).partition('"')[2].partition('"')[0]
        what, remedy = f"key '{key}' is given twice", "keep one of the two"
        raise InputError(what, where=_marked(error, name), remedy=remedy) from error
    except MarkedYAMLError as error:
        said = ", ".join(part for part in (error.context, error.problem) if part)
        what = f"this is not YAML: {' '.join(said.split())}"
        raise InputError(what, where=_marked(error, name)) from error
    except ReaderError as error:
        before = text[: error.position]
        where = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        what = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML"
        raise InputError(what, where=where, remedy="remove it") from error
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # Where ruamel itself fails, it says little more than that.
        what = f"this is not YAML: {error}"
        raise InputError(what, where=name) from error


def as_current(text: str) -> str:
    """The text without a directive that says which YAML it is: it is 1.2, where `no` is Norwegian.

    Its place stays, so that every line and column is still that of the file.
    """
    return VERSION_LINE.sub(lambda found: "#" + found[0][1:], text)


class _Constructor(RoundTripConstructor):
    """YAML 1.2 has no dates: they are text, also those that no calendar has."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", _Constructor.construct_yaml_str)


def _marked(error: MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark
    return f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name


def _plain(node: object, path: Loc, places: dict[Loc, tuple[int, int]]) -> Any:  # noqa: ANN401
    """The node without YAML's own types; notes where each of its children stands."""
    if isinstance(node, CommentedMap):
        for key in node:
            places[(*path, _key(key))] = _place(node, key)
        return {_key(key): _plain(node[key], (*path, _key(key)), places) for key in node}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            places[(*path, index)] = _place(node, index)
        return [_plain(item, (*path, index), places) for index, item in enumerate(node)]
    return _scalar(node)


def _place(parent: CommentedMap | CommentedSeq, key: object) -> tuple[int, int]:
    marks = parent.lc.data or {}
    # What a merge key `<<` brings in has no place of its own.
    line, column = marks[key][:2] if key in marks else (parent.lc.line, parent.lc.col)
    return line + 1, column + 1


def _key(key: object) -> str:
    return str(_scalar(key)) if key is not None else "null"


def _scalar(node: object) -> Any:  # noqa: ANN401
    """One of Python's own scalars.

    true and false become text: pydantic takes that for a truth value, but would also take a bool
    for the number 1 or 0, where it is a mistake.
    """
    if isinstance(node, TaggedScalar):  # of a tag that changes nothing, such as !!str
        return str(node.value)
    if isinstance(node, bool):
        return "true" if node else "false"
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node
