"""Rows from JSON text: one object per line, one array of objects, or objects over many lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from koinize.data.rows import Row
from koinize.errors import InputError

EACH_LINE = "one JSON object per line"
WHOLE = "an array of objects, or one object per line"


def json_rows(text: str, source: str) -> Iterator[Row | InputError]:
    """The rows of a .jsonl or .json file; what the text is decides, not the file's name.

    In a file of one object per line every bad line is an error of its own. Where objects go over
    many lines the first error is the last thing found: what follows cannot be told apart.
    """
    if is_by_line(text):
        return _lines(text, source)
    start = _next(text, 0)
    array = text[start] == "["
    return _values(text, start + array, source, array=array)


def is_by_line(text: str) -> bool:
    """Whether it has one object per line, or was meant to."""
    start = text.lstrip()
    return not start.startswith("[") and start.partition("\n")[0].strip() != "{"


def _lines(text: str, source: str) -> Iterator[Row | InputError]:
    # Not splitlines(): JSON may hold U+2028 and its kin, which end no line of a file.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{source}:{number}"
        try:
            columns = json.loads(line, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            what = f"the line is not JSON: {_said(error)}"
            yield InputError(what, where=where, expected=EACH_LINE)
            continue
        if isinstance(columns, dict):
            yield Row(columns, where)
        else:
            yield InputError("the line is not an object", where=where, expected=EACH_LINE)


def _values(text: str, at: int, source: str, *, array: bool) -> Iterator[Row | InputError]:
    """The objects from `at` on: of an array whose bracket is open there, or one after another.

    A comma too many or too few between two of them leaves no doubt, and is let pass.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_distinct)
    line, counted = 1, 0
    while (at := _next(text, at)) < len(text):
        if array and text[at] == "]":
            if (more := _next(text, at + 1)) < len(text):
                yield _fault("there is more after the array", text, more, source)
            return
        try:
            columns, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            place = error.pos if isinstance(error, json.JSONDecodeError) else at
            yield _fault(f"it is not JSON: {_said(error)}", text, place, source)
            return
        if not isinstance(columns, dict):
            yield _fault("here is something that is no object", text, at, source)
            return
        line, counted = line + text.count("\n", counted, at), at
        yield Row(columns, f"{source}:{line}")
        at = _next(text, end)
        at += array and text.startswith(",", at)
    if array:
        yield _fault("the array has no end", text, len(text.rstrip()), source)


def _fault(what: str, text: str, at: int, source: str) -> InputError:
    line = text.count("\n", 0, at) + 1
    return InputError(what, where=f"{source}:{line}", expected=WHOLE)


def _next(text: str, at: int) -> int:
    """Where something other than white space stands, from `at` on."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _said(error: Exception) -> str:
    """What is wrong, and at which column; the line is said elsewhere, as the file counts it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    columns = dict(pairs)
    if len(columns) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, _ in pairs if counts[name] > 1)
        raise ValueError(f"the key '{twice}' appears twice")
    return columns
