"""A table of figures over seeds, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev


@dataclass
class Table:
    """Figures by row, column and seed; rows and columns stand in the order in which they came."""

    title: str
    figures: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    digits: int = 1

    def add(self, row: str, column: str, seed: int, value: float) -> None:
        """One figure of one seed."""
        self.figures.setdefault((row, column), {})[seed] = value

    def markdown(self) -> str:
        """The mean over seeds, with their standard deviation where there are several."""
        rows, columns = (list(dict.fromkeys(key[n] for key in self.figures)) for n in (0, 1))
        lines = [["", *columns], ["---"] * (1 + len(columns))]
        lines += [[row, *(self._cell(row, column) for column in columns)] for row in rows]
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"**{self.title}**\n\n{body}\n"

    def _cell(self, row: str, column: str) -> str:
        found = list(self.figures.get((row, column), {}).values())
        return over_seeds(found, self.digits) if found else ""


def over_seeds(values: Sequence[float], digits: int = 1) -> str:
    """Such as "71.2 ± 0.8": the mean and the standard deviation of what the seeds gave."""
    text = f"{fmean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text
