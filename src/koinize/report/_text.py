"""Blocks for a terminal: rich tables and paragraphs. Of a figure its table is shown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from koinize.report._blocks import Block, Cell, Facts, Figure, Heading, Paragraph, Table, Tone

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
    return _table(block)


def _table(table: Table) -> RenderableType:
    drawn = RichTable(
        title=Text(table.caption) if table.caption else None,
        title_justify="left",
        title_style="italic",
        show_header=any(table.columns),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index, name in enumerate(table.columns):
        justify: JustifyMethod = "right" if index in table.numbers else "left"
        drawn.add_column(Text(name), justify=justify, overflow="fold")
    for index, row in enumerate(table.rows):
        style = "bold" if index in table.highlight else ""
        drawn.add_row(*(_cell(cell) for cell in row), style=style)
    return drawn


def _cell(cell: Cell) -> Text:
    text = Text(cell.text, style=STYLES.get(cell.tone, ""))
    return text.append(f"\n{cell.below}", style="dim") if cell.below else text
