"""Rows of data: read from files or a hub, and checked for leaks between splits.

What a row means, and so what it is identified by, is said by its task (`tasks`); here a row is
columns and a place.
"""

from koinize.data.checks import Finding, check_splits, refuse_leaks
from koinize.data.json_rows import is_by_line
from koinize.data.reading import read_rows
from koinize.data.rows import SPLITS, Row, not_among, refuse

__all__ = [
    "SPLITS",
    "Finding",
    "Row",
    "check_splits",
    "is_by_line",
    "not_among",
    "read_rows",
    "refuse",
    "refuse_leaks",
]
