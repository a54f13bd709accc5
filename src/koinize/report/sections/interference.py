"""Where the languages' adapters disagree: before any merge, from their factors alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from koinize.report.blocks import Block, Cell, Figure, Table, plain
from koinize.report.figures import Inspection, Task
from koinize.report.formats import MINUS
from koinize.report.heat import heat, top_of
from koinize.report.section import TaskSection

RULE = (
    "Cosine: of two whole updates, 1 for the same direction, 0 for unrelated ones. Overlap: mean "
    "squared cosine of the principal angles between the spaces that two adapters write to (the "
    "columns of B) and read from (the rows of A), module by module; 1 means the same space. "
    "Opposed signs: share of the weights that both change, and in opposite directions; unrelated "
    "updates oppose each other on half. Merging has to settle just these conflicts."
)
Measure = Literal["cosine", "column_overlap", "row_overlap", "sign_conflict"]
MEASURES: tuple[tuple[Measure, str], ...] = (
    ("cosine", "Cosine of updates"),
    ("column_overlap", "Overlap, columns of B"),
    ("row_overlap", "Overlap, rows of A"),
    ("sign_conflict", "Opposed signs"),
)
SIDE_BY_SIDE = 7  # languages; the cells of more would be too narrow for their numbers


class Interference(TaskSection):
    """Per task: a heat map for each measure, and what each adapter holds."""

    title = "Interference between languages"
    order = 65
    rule = RULE

    def of_task(self, task: Task) -> Sequence[Block]:
        """Nothing where there are not two adapters."""
        found = task["interference"]
        return [_figure(found, task["name"]), _adapters(found)] if found else []


def _figure(found: Inspection, task: str) -> Figure:
    panels = []
    for key, title in MEASURES:
        # Half of the signs are opposed by chance, so that is where their colour is full.
        top = 0.5 if key == "sign_conflict" else top_of(found[key])
        drawing = heat(
            found["languages"],
            found[key],
            top,
            f"{title}, {task}",
            warns=key == "sign_conflict",
        )
        panels.append((f"{title} · full colour at {top:g}", drawing))
    caption = (
        "Every cell is a pair of languages. Blue is agreement or overlap, orange a negative cosine "
        "or opposed signs; the number says the same."
    )
    wide = len(found["languages"]) > SIDE_BY_SIDE
    return Figure(caption, tuple(panels), table=_pairs(found), wide=wide)


def _pairs(found: Inspection) -> Table:
    indexes = combinations(range(len(found["languages"])), 2)
    return Table(
        columns=(
            "languages", "cosine", "overlap B", "overlap A", "opposed signs",
            "smallest angle B", "smallest angle A",
        ),
        rows=tuple(_pair(found, i, j) for i, j in indexes),
        caption="Pairs of languages; angles are the smallest principal angle, a mean over modules",
        numbers=frozenset(range(1, 7)),
    )  # fmt: skip


def _pair(found: Inspection, i: int, j: int) -> tuple[Cell, ...]:
    names = found["languages"]
    figures = [f"{found[key][i][j]:.3f}".replace("-", MINUS) for key, _ in MEASURES]
    angles = [f"{angle[i][j]:.1f}°" for angle in (found["column_angle"], found["row_angle"])]
    return plain(f"{names[i]} and {names[j]}"), *map(plain, [*figures, *angles])


def _adapters(found: Inspection) -> Table:
    ranks = found["energy_ranks"]
    columns = zip(
        found["languages"],
        found["norms"],
        found["ranks"],
        found["energy"],
        strict=True,
    )
    return Table(
        columns=(
            "adapter", "norm", "rank for 90 %", "rank for 99 %", *(f"rank {one}" for one in ranks),
        ),
        rows=tuple(
            tuple(
                plain(text)
                for text in (
                    language,
                    f"{norm:#.3g}",
                    *(f"{one:.1f}" for one in needed),
                    *(f"{100 * share:.1f} %" for share in energy),
                )
            )
            for language, norm, needed, energy in columns
        ),
        caption="Frobenius norm of each adapter's update, the mean rank that keeps 90 % and 99 % "
        "of its energy (squared norm), and the energy that lower ranks would keep",
        numbers=frozenset(range(1, 4 + len(ranks))),
    )  # fmt: skip


section = Interference()
