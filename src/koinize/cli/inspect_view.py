"""`koinize inspect` in a terminal: plain tables, one for each question."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import TYPE_CHECKING

import typer

from koinize.shown import line

if TYPE_CHECKING:
    from koinize.engine.inspect import Inspection, Interference, Matrix


def show_inspection(found: Inspection) -> None:
    """Each adapter alone, every pair, and the parts if there are any."""
    total = found.total
    typer.echo(f"base model: {line(found.base_model)}")
    _table(
        ["", "modules", "parameters", "norm", "rank for 90 %", "rank for 99 %"],
        zip(
            found.languages,
            total.modules,
            found.parameters,
            (f"{norm:.4g}" for norm in total.norms),
            *([f"{ranks[share]:.1f}" for ranks in total.ranks] for share in (0, 1)),
            strict=True,
        ),
    )
    _titled(
        "energy kept by rank",
        [str(rank) for rank in total.energy_ranks],
        found,
        ([f"{100 * share:.1f} %" for share in row] for row in total.energy),
    )
    for title, matrix in (
        ("cosine of the updates", total.cosine),
        ("overlap of the column spaces (B)", total.column_overlap),
        ("overlap of the row spaces (A)", total.row_overlap),
        ("share of opposed signs", total.sign_conflict),
    ):
        cells = ([f"{x:.3f}" for x in row] for row in matrix)
        _titled(title, found.languages, found, cells)
    for title, matrix in (
        ("smallest principal angle, columns (B)", total.column_angle),
        ("smallest principal angle, rows (A)", total.row_angle),
    ):
        cells = ([f"{x:.1f}°" for x in row] for row in matrix)
        _titled(title, found.languages, found, cells)
    if found.parts:
        typer.echo("")
        _table(
            ["means over the pairs", "cosine", "overlap B", "overlap A", "opposed signs", "norm"],
            ([line(name), *_means(part)] for name, part in found.parts.items()),
        )


def _titled(
    title: str, columns: Iterable[str], found: Inspection, cells: Iterable[list[str]]
) -> None:
    typer.echo("")
    rows = zip(found.languages, cells, strict=True)
    _table([title, *columns], ([language, *row] for language, row in rows))


def _means(part: Interference) -> list[str]:
    """Over the pairs of adapters that both have modules here, then the mean norm."""
    pairs = list(combinations([i for i, count in enumerate(part.modules) if count], 2))

    def mean(matrix: Matrix) -> str:
        return f"{sum(matrix[i][j] for i, j in pairs) / len(pairs):.3f}" if pairs else "–"

    measures = part.cosine, part.column_overlap, part.row_overlap, part.sign_conflict
    norms = [norm for norm, count in zip(part.norms, part.modules, strict=True) if count]
    return [*map(mean, measures), f"{sum(norms) / len(norms):.4g}"]


def _table(head: list[str], rows: Iterable[Iterable[object]]) -> None:
    lines = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    for first, *rest in lines:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        typer.echo("  ".join(cells).rstrip())
