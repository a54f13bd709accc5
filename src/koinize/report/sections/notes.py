"""What a reader has to know besides."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report.blocks import Block, Paragraph
from koinize.report.figures import Results
from koinize.report.section import Section


class Notes(Section):
    """One paragraph per note."""

    title = "Notes"
    order = 90

    def data(self, results: Results) -> Sequence[Block]:
        """Nothing where nothing is to be said."""
        return [Paragraph(note) for note in results["notes"]]


section = Notes()
