"""Rows from text and Parquet files or from a hub; a bad row names file, line and field.

All formats come down to the values that JSON knows: null, bool, number, text, list, object.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from koinize.data.csv_rows import TAB, csv_rows
from koinize.data.hub import PREFIX, hub_rows
from koinize.data.json_rows import json_rows
from koinize.data.rows import LARGEST_ROW, MOST_COLUMNS, Row, refuse
from koinize.errors import InputError
from koinize.files import LARGEST_RECORD, open_regular, read_bytes, refuse_depth

FORMATS = f".jsonl, .json, .csv, .tsv, .parquet or {PREFIX}owner/name#split"
CONVERSIONS = {
    ".gz": "gunzip --keep '{}'",
    ".bz2": "bunzip2 --keep '{}'",
    ".xz": "unxz --keep '{}'",
    ".zst": "unzstd '{}'",
    ".xlsx": "soffice --headless --convert-to csv '{}'",
    ".xls": "soffice --headless --convert-to csv '{}'",
    ".ods": "soffice --headless --convert-to csv '{}'",
}
"""The command that makes a file of a known format out of one that is not read."""
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""First bytes that say which encoding a text has; the longer first, as one begins with another."""
DAMAGED = (ValueError, LookupError, RuntimeError, NotImplementedError, TypeError, MemoryError)


def read_rows(source: str, root: Path) -> list[Row]:
    """All rows of one split, in the order of the source.

    `source` is the path of a .jsonl, .json, .csv, .tsv or .parquet file, relative to `root` (the
    folder of the specification) unless absolute, or a dataset
    `hf:owner/name[:config][@revision]#split`. In a CSV file every value is text. `Row.where`
    counts the lines of text files, else rows, from 1.

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
        case ".jsonl" | ".ndjson" | ".json":
            return json_rows(_text(path, source), source)
        case ".csv":
            return csv_rows(_text(path, source), source)
        case ".tsv":
            return csv_rows(_text(path, source), source, TAB)
        case ".parquet":
            return _numbered(_parquet_rows(path, source), source)
        case suffix:
            what = f"the format '{suffix}' is unknown"
            remedy = CONVERSIONS.get(suffix, "").format(source)
            raise InputError(what, where=source, expected=FORMATS, remedy=remedy)


def _numbered(mappings: Iterable[Mapping[str, object]], source: str) -> Iterator[Row]:
    return (Row(columns, f"{source}:{n}") for n, columns in enumerate(mappings, start=1))


def _text(path: Path, source: str) -> str:
    try:
        content = read_bytes(path)
    except OSError as error:
        raise _unreadable(error, source) from error
    return _decoded(content, source)


def _decoded(content: bytes, source: str) -> str:
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:4]:
        what = "it holds zero bytes, as UTF-16 without its mark does"
        remedy = _convert("UTF-16BE" if content[0] == 0 else "UTF-16LE", source)
        raise InputError(what, where=source, remedy=remedy)
    try:
        return content.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        if encoding:
            what = f"it begins as {encoding.upper()} does and is not: {error.reason}"
            raise InputError(what, where=source, remedy="save the file as UTF-8") from error
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02x} is not UTF-8"
        remedy = f"save the file as UTF-8, such as by {_convert('WINDOWS-1252', source)}"
        raise InputError(what, where=f"{source}:{line}", remedy=remedy) from error


def _convert(encoding: str, source: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 '{source}' > NEW"


def _unreadable(error: OSError, source: str) -> InputError:
    if isinstance(error, FileNotFoundError):
        remedy = "a path starts from the folder of koinize.yaml"
        return InputError("there is no such file", where=source, remedy=remedy)
    return InputError(f"it cannot be read: {error.strerror or error}", where=source)


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
        with open_regular(path) as file:
            table = parquet.ParquetFile(file)
            groups = map(table.metadata.row_group, range(table.num_row_groups))
            if (size := sum(group.total_byte_size for group in groups)) > LARGEST_RECORD:
                expected = f"at most {LARGEST_RECORD:,} once unpacked"
                raise InputError(f"it holds {size:,} bytes", where=source, expected=expected)
            rows: list[dict[str, object]] = table.read().to_pylist()
    except (OSError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.strerror:
            raise _unreadable(error, source) from error
        # pyarrow's own are of many kinds: it is not a Parquet file, or a damaged one.
        raise InputError(f"it is not a Parquet file: {error}", where=source) from error
    return rows


def _fault(row: Row) -> InputError | None:
    """What makes a row unusable: its size, or a value that has no place in JSON and no identity."""
    if bound := _beyond(row):
        what, expected = bound
        return InputError(what, where=row.where, expected=expected)
    for name, value in row.columns.items():
        if reason := _reason(value) or _reason(name):
            return InputError(
                f"column '{name}' {reason}".encode("utf-8", "replace").decode(),
                where=row.where,
                expected="text, a number, true, false, null, or a list or object of these",
            )
    return None


def _beyond(row: Row) -> tuple[str, str] | None:
    """In which way a row is larger than any model reads, and what was expected."""
    if len(row.columns) > MOST_COLUMNS:
        return f"the row has {len(row.columns):,} columns", f"at most {MOST_COLUMNS:,}"
    try:
        refuse_depth(row.columns)
    except ValueError as error:
        return f"in the row, {error}", "text, numbers, and lists of them"
    if (size := _characters(row.columns)) > LARGEST_ROW:
        return f"the row has {size:,} characters", f"at most {LARGEST_ROW:,}"
    return None


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value)) + sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 1


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
