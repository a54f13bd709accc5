"""Rows of data: read from files or a hub, identified by content, checked for leaks between splits.

The order of rows never changes a result: everybody who depends on an order sorts with
`canonical_order` first, so one digest that ignores order identifies a split.
"""

from koinize.data.checks import Finding, check_splits, refuse_leaks
from koinize.data.reading import read_rows
from koinize.data.rows import (
    SPLITS,
    Row,
    canonical_order,
    not_among,
    refuse,
    row_digest,
    rows_digest,
)

__all__ = [
    "SPLITS",
    "Finding",
    "Row",
    "canonical_order",
    "check_splits",
    "not_among",
    "read_rows",
    "refuse",
    "refuse_leaks",
    "row_digest",
    "rows_digest",
]
