"""Blocks for a terminal: rich tables and paragraphs. Of a figure its table is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from koinize.report.blocks import (
    Block,
    Cell,
    Facts,
    Figure,
    Heading,
    Paragraph,
    Table,
    Tone,
)

UNBROKEN = 36  # characters; longer text may be broken
GAP = 3  # between two columns

STYLES: dict[Tone, str] = {
    "strong": "bold",
    "muted": "dim",
    "better": "bold blue",
    "not worse": "blue",
    "worse": "bold yellow",
    "inconclusive": "dim",
}


def blocks_text(blocks: Sequence[Block]) -> list[RenderableType]:
    """One renderable per block that a terminal can show."""
    shown = (block.table if isinstance(block, Figure) else block for block in blocks)
    return [_render(block) for block in shown if block]


def _render(block: Heading | Paragraph | Facts | Table) -> RenderableType:
    if isinstance(block, Heading):
        return Padding(Text(block.text, style="bold underline"), (1, 0, 0, 0))
    if isinstance(block, Paragraph):
        return Text(block.text, style=STYLES.get(block.tone, ""))
    if isinstance(block, Facts):
        lines = [
            Text.assemble((figure, "bold"), f"  {label}", (f" ({explanation})", "dim"))
            for label, figure, explanation in block.items
        ]
        return Text("\n").join(lines)
    return _Parts(block)


@dataclass(frozen=True)
class _Parts:
    """A table in as many parts as the terminal's width asks for, the first column in each."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, columns in enumerate(_split(self.table, options.max_width)):
            yield _drawn(self.table, columns, with_caption=number == 0)


def _split(table: Table, width: int) -> list[list[int]]:
    """Indexes of the columns of each part: as many as fit, in their order."""
    first = _width(table, 0)
    parts, used = [[0]], first
    for index in range(1, len(table.columns)):
        needed = _width(table, index)
        if used + needed > width and len(parts[-1]) > 1:
            parts.append([0])
            used = first
        parts[-1].append(index)
        used += needed
    return parts


def _width(table: Table, index: int) -> int:
    """Characters that a column takes without a break, up to where a break does no harm."""
    texts = [table.columns[index]]
    for row in table.rows:
        texts += [*row[index].text.splitlines(), row[index].below]
    return min(max(map(cell_len, texts)), UNBROKEN) + GAP


def _drawn(table: Table, columns: Sequence[int], *, with_caption: bool) -> RichTable:
    caption = table.caption if with_caption else ""
    drawn = RichTable(
        title=Text(caption) if caption else None,
        title_justify="left",
        title_style="italic",
        show_header=any(table.columns),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index in columns:
        justify: JustifyMethod = "right" if index in table.numbers else "left"
        drawn.add_column(Text(table.columns[index]), justify=justify, overflow="fold")
    for number, row in enumerate(table.rows):
        style = "bold" if number in table.highlight else ""
        drawn.add_row(*(_cell(row[index]) for index in columns), style=style)
    return drawn


def _cell(cell: Cell) -> Text:
    text = Text(cell.text, style=STYLES.get(cell.tone, ""))
    return text.append(f"\n{cell.below}", style="dim") if cell.below else text
