"""A heat map: a square matrix of figures, each cell with its number, so that colour only repeats.

No text stands on a strong colour: at full strength a cell is half transparent, which keeps the
number readable on light and on dark pages, in print, and for readers who see no colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import SubElement

from markupsafe import Markup

from koinize.report.formats import MINUS
from koinize.report.svg import as_markup, canvas, write

CELL = 34  # pixels
HEAD = 20
LABELS = 13.0  # percent of the width
FULL = 0.5  # opacity
TOPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def top_of(matrix: Sequence[Sequence[float]]) -> float:
    """The round number at which the colour is full: what holds all that is off the diagonal."""
    largest = max(
        (abs(value) for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j),
        default=0.0,
    )
    return next((top for top in TOPS if top >= largest), TOPS[-1])


def heat(
    names: Sequence[str],
    matrix: Sequence[Sequence[float]],
    top: float,
    description: str,
    *,
    warns: bool = False,
) -> Markup:
    """One square per pair. `warns` gives all cells the colour that negative ones have."""
    root = canvas(HEAD + CELL * len(names), description)
    width = (100.0 - LABELS) / len(names)
    for column, name in enumerate(names):
        x = f"{LABELS + width * (column + 0.5):.2f}%"
        write(root, name, x, HEAD - 7, "tick", "middle")
    for row, (name, values) in enumerate(zip(names, matrix, strict=True)):
        y = HEAD + CELL * row
        write(root, name, "0", y + CELL / 2 + 4, "name", "start")
        for column, value in enumerate(values):
            group = SubElement(root, "g", {"class": "heat"})
            SubElement(group, "title").text = f"{name} and {names[column]}: {_number(value, 4)}"
            left = LABELS + width * column
            strength = 0.0 if row == column else FULL * min(1.0, abs(value) / top)
            frame = {"x": f"{left:.2f}%", "y": str(y), "width": f"{width:.2f}%"}
            kind = "cell against" if warns or value < 0 else "cell"
            look = {"height": str(CELL), "class": kind, "fill-opacity": f"{strength:.3f}"}
            SubElement(group, "rect", {**frame, **look})
            said = "tick" if row == column else "value"
            x = f"{left + width / 2:.2f}%"
            write(group, _number(value, 2), x, y + CELL / 2 + 4, said, "middle")
    return as_markup(root)


def _number(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)
