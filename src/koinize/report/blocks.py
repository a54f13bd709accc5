"""What sections are made of: paragraphs, facts, tables, figures. `html` and `text` draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Tone = Literal[
    "", "strong", "muted", "better", "not worse", "worse", "inconclusive", "comb", "train", "merge",
    "choose", "test", "base", "idle", "failed", "superseded",
]  # fmt: skip

SYMBOLS = {"better": "▲", "not worse": "✓", "worse": "▼", "inconclusive": "?"}
"""A verdict is read by symbol and word; colour only repeats them."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: `text`, what is smaller beneath it, and what a pointer that rests on it shows."""

    text: str
    below: str = ""
    tone: Tone = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table. Columns named in `numbers` (by index) are set flush right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    numbers: frozenset[int] = frozenset()
    highlight: frozenset[int] = frozenset()
    """Rows to be marked, by index: the chosen ones."""
    repeated: frozenset[int] = frozenset()
    """Rows that say what another one says, by index: left out on paper."""
    folded: str = ""
    """Words under which a page folds the table away until they are asked for."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph of plain text."""

    text: str
    tone: Tone = ""
    folded: str = ""
    """Words under which a page folds it away until it is asked for; paper shows it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A few figures in large type: (label, figure, explanation)."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels of SVG side by side: (title, drawing). `table` says the same in figures; it is what a
    terminal shows, and None where the tables beside the figure say it already.
    """

    caption: str
    panels: tuple[tuple[str, Markup], ...]
    legend: tuple[tuple[Tone, str], ...] = ()
    table: Table | None = None
    wide: bool = False


def reading(rule: str) -> Paragraph:
    """What the words and figures of a section mean."""
    return Paragraph(rule, "muted", folded="How to read this")


Block = Heading | Paragraph | Facts | Table | Figure


def plain(text: object) -> Cell:
    """A cell of text alone."""
    return Cell(str(text))


def verdict_cell(verdict: str, below: str = "", title: str = "") -> Cell:
    """A verdict with its symbol."""
    tones: dict[str, Tone] = {
        "better": "better",
        "not worse": "not worse",
        "worse": "worse",
        "inconclusive": "inconclusive",
    }
    return Cell(f"{SYMBOLS[verdict]} {verdict}", below, tones[verdict], title)


def pairs(
    rows: Sequence[tuple[str, str]], caption: str = "", first: str = "", second: str = ""
) -> Table:
    """A table of names and values."""
    body = tuple((plain(name), plain(value)) for name, value in rows)
    return Table(columns=(first, second), rows=body, caption=caption)
