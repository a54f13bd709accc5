"""What a section is: one file of `koinize.report.sections` whose attribute `section` is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from markupsafe import Markup
from rich.console import RenderableType

from koinize.report.blocks import Block, Heading, reading
from koinize.report.figures import Results, Task
from koinize.report.html import blocks_html
from koinize.report.lookup import named
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


class TaskSection(Section):
    """A section that says the same kind of thing of every task, after a rule for all of them."""

    rule: ClassVar[str] = ""

    @abstractmethod
    def of_task(self, task: Task) -> Sequence[Block]:
        """The blocks of one task; none, and it is left out."""

    def data(self, results: Results) -> Sequence[Block]:
        """The rule, then each task under its name where there are several."""
        blocks: list[Block] = []
        for task in results["tasks"]:
            found = self.of_task(task)
            if found and (heading := named(results["tasks"], task)):
                blocks.append(Heading(heading))
            blocks += found
        return [reading(self.rule), *blocks] if blocks and self.rule else blocks
