"""What a section is: one file of `koinize.report.sections` whose attribute `section` is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from markupsafe import Markup
from rich.console import RenderableType

from koinize.report.blocks import Block
from koinize.report.figures import Results
from koinize.report.html import blocks_html
from koinize.report.text import blocks_text


class Section(ABC):
    """One part of the report. It computes nothing: all it says stands in the results."""

    title: ClassVar[str]
    order: ClassVar[int]
    """Place in the report; smaller comes first."""

    @abstractmethod
    def data(self, results: Results) -> Sequence[Block]:
        """The blocks of this section; none, and it is left out."""

    def html(self, results: Results) -> Markup:
        """The section's content, escaped."""
        return blocks_html(self.data(results))

    def text(self, results: Results) -> Sequence[RenderableType]:
        """The section's content for a terminal."""
        return blocks_text(self.data(results))
