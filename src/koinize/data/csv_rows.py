"""Rows from comma, semicolon or tab separated text whose first line names the columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import StringIO

from koinize.data.rows import MOST_COLUMNS, Row
from koinize.errors import InputError

TAB, SEMICOLON, COMMA = "\t", ";", ","
QUOTED = re.compile(r'"[^"]*"')


def csv_rows(text: str, source: str, delimiter: str | None = None) -> Iterator[Row | InputError]:
    """The rows, every value as text; a row is where its first line is.

    Without a `delimiter` the line of names decides: a semicolon or a tab, where it has no comma.
    """
    # Python's own limit of 131,072 characters is there for readers of streams; this text is here.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    lines = StringIO(text, newline="")
    reader = csv.reader(lines, strict=True, delimiter=delimiter or _delimiter(text))
    header: list[str] = []
    expected, line = "", 1
    try:
        for fields in reader:
            where, line = f"{source}:{line}", reader.line_num + 1
            if not header:
                header = _header(fields, where)
                expected = f"{len(header)}: {', '.join(header)}"
            elif len(fields) == len(header):
                yield Row(dict(zip(header, fields, strict=True)), where)
            elif fields:
                what = f"the row has {len(fields)} fields"
                yield InputError(what, where=where, expected=expected)
    except csv.Error as error:
        # What follows an open quotation mark cannot be told apart into rows any more.
        yield InputError(f"the row is not CSV: {error}", where=f"{source}:{line}")


def _delimiter(text: str) -> str:
    """Spreadsheets of half of Europe write semicolons into a .csv file, others tabs."""
    names = QUOTED.sub("", text.lstrip("\r\n").partition("\n")[0])
    if COMMA in names:
        return COMMA
    return max((COMMA, SEMICOLON, TAB), key=names.count)


def _header(names: list[str], where: str) -> list[str]:
    if len(names) > MOST_COLUMNS:
        what = f"the file has {len(names):,} columns"
        raise InputError(what, where=where, expected=f"at most {MOST_COLUMNS:,}")
    expected = "a first line of distinct column names"
    for index, name in enumerate(names):
        if not name.strip():
            raise InputError("a column has no name", where=where, expected=expected)
        if name in names[:index]:
            what = f"the column name '{name}' stands twice"
            raise InputError(what, where=where, expected=expected)
    return names
