"""One row of data, and how the mistakes in many rows become one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from koinize.errors import InputError, ManyErrors, perhaps

SPLITS = ("train", "dev", "test")
SHOWN_ERRORS = 20
MOST_COLUMNS = 1000
LARGEST_ROW = 1_000_000  # characters; of a longer prompt no model reads more than a few thousand


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one row, and `where` it stands ("file:line"), for messages only."""

    columns: Mapping[str, object]
    where: str


def refuse(errors: Sequence[InputError]) -> None:
    """Raise every error at once, the first 20 in full and the rest as a number; none is fine."""
    if not errors:
        return
    shown = list(errors[:SHOWN_ERRORS])
    if len(errors) > SHOWN_ERRORS:
        shown.append(InputError(f"and {len(errors) - SHOWN_ERRORS} more like these"))
    raise ManyErrors(shown)


def not_among(what: str, name: str, known: Iterable[str], *, where: str = "") -> InputError:
    """The error for a name outside a known set: the whole set, and the nearest name if one is."""
    names = list(known)
    expected = f"one of: {', '.join(names)}"
    return InputError(what, where=where, expected=expected, remedy=perhaps(name, names))
