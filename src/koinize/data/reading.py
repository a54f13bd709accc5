"""Rows from .jsonl, .csv and .parquet files or from a hub; a bad row names file, line and field.

All formats come down to the values that JSON knows: null, bool, number, text, list, object.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from koinize.data.hub import PREFIX, hub_rows
from koinize.data.rows import Row, refuse
from koinize.errors import InputError

FORMATS = f".jsonl, .csv, .parquet or {PREFIX}owner/name#split"


def read_rows(source: str, root: Path) -> list[Row]:
    """All rows of one split, in the order of the source.

    `source` is the path of a .jsonl, .csv or .parquet file, relative to `root` (the folder of the
    specification) unless absolute, or a dataset `hf:owner/name[:config][@revision]#split`. In a
    CSV file every value is text. `Row.where` counts the lines of text files, else rows, from 1.

    Raises InputError for a source that cannot be read or is empty, and ManyErrors for bad rows.
    """
    rows: list[Row] = []
    errors: list[InputError] = []
    for found in _rows_or_errors(source, root):
        if isinstance(found, InputError):
            errors.append(found)
        elif fault := _fault(found):
            errors.append(fault)
        else:
            rows.append(found)
    refuse(errors)
    if not rows:
        raise InputError("there are no rows here", where=source, expected="at least one row")
    return rows


def _rows_or_errors(source: str, root: Path) -> Iterator[Row | InputError]:
    if source.startswith(PREFIX):
        return _numbered(hub_rows(source), source)
    path = root / source
    match path.suffix.lower():
        case ".jsonl":
            return _jsonl_rows(_text(path, source), source)
        case ".csv":
            return _csv_rows(_text(path, source), source)
        case ".parquet":
            return _numbered(_parquet_rows(path, source), source)
        case suffix:
            what = f"the format '{suffix}' is unknown"
            raise InputError(what, where=source, expected=FORMATS)


def _numbered(mappings: Iterable[Mapping[str, object]], source: str) -> Iterator[Row]:
    return (Row(columns, f"{source}:{n}") for n, columns in enumerate(mappings, start=1))


def _text(path: Path, source: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(error, source) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02x} is not UTF-8"
        remedy = "save the file as UTF-8"
        raise InputError(what, where=f"{source}:{line}", remedy=remedy) from error


def _unreadable(error: OSError, source: str) -> InputError:
    if isinstance(error, FileNotFoundError):
        remedy = "a path starts from the folder of koinize.yaml"
        return InputError("there is no such file", where=source, remedy=remedy)
    return InputError(f"it cannot be read: {error.strerror}", where=source)


def _jsonl_rows(text: str, source: str) -> Iterator[Row | InputError]:
    # Not splitlines(): JSON may hold U+2028 and its kin, which end no line of a file.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{source}:{number}"
        try:
            columns = json.loads(line, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            what = f"the line is not JSON: {error}"
            yield InputError(what, where=where, expected="one JSON object per line")
            continue
        if isinstance(columns, dict):
            yield Row(columns, where)
        else:
            yield InputError(
                "the line is not an object", where=where, expected="one JSON object per line"
            )


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    columns = dict(pairs)
    if len(columns) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' appears twice")
    return columns


def _csv_rows(text: str, source: str) -> Iterator[Row | InputError]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    header: list[str] = []
    line = 1
    try:
        for fields in reader:
            where, line = f"{source}:{line}", reader.line_num + 1
            if not header:
                header = _header(fields, where)
            elif len(fields) == len(header):
                yield Row(dict(zip(header, fields, strict=True)), where)
            elif fields:
                what = f"the row has {len(fields)} fields"
                expected = f"{len(header)}: {', '.join(header)}"
                yield InputError(what, where=where, expected=expected)
    except csv.Error as error:
        # What follows an open quotation mark cannot be told apart into rows any more.
        yield InputError(f"the row is not CSV: {error}", where=f"{source}:{line}")


def _header(names: list[str], where: str) -> list[str]:
    expected = "a first line of distinct column names"
    for name in names:
        if not name.strip():
            raise InputError("a column has no name", where=where, expected=expected)
        if names.count(name) > 1:
            what = f"the column name '{name}' stands twice"
            raise InputError(what, where=where, expected=expected)
    return names


def _parquet_rows(path: Path, source: str) -> list[dict[str, object]]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(
            "reading Parquet needs pyarrow, which is not installed",
            where=source,
            remedy="pip install 'koinize[parquet]'",
        ) from error
    try:
        with path.open("rb") as file:
            rows: list[dict[str, object]] = parquet.read_table(file).to_pylist()
    except OSError as error:
        raise _unreadable(error, source) from error
    except ValueError as error:  # pyarrow's ArrowInvalid: not a Parquet file, or a damaged one
        raise InputError(f"it is not a Parquet file: {error}", where=source) from error
    return rows


def _fault(row: Row) -> InputError | None:
    """What makes a row unusable: a value that has no place in JSON, and so no identity."""
    for name, value in row.columns.items():
        if reason := _reason(value) or _reason(name):
            return InputError(
                f"column '{name}' {reason}".encode("utf-8", "replace").decode(),
                where=row.where,
                expected="text, a number, true, false, null, or a list or object of these",
            )
    return None


def _reason(value: object) -> str:
    match value:
        case str():
            return "" if _encodable(value) else "holds half a character (a lone surrogate)"
        case float():
            return "" if math.isfinite(value) else f"is {value}"
        case None | bool() | int():
            return ""
        case list() | tuple():
            return next(filter(None, map(_reason, value)), "")
        case dict():
            return _reason([*value, *value.values()])
        case _:
            return f"is of the type {type(value).__name__}"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
