"""What a metric is: statistics per row that can be summed, and one formula over their sums.

Because rows meet only in a sum, a bootstrap resample is a vector of counts times the statistics,
and thousands of resamples are one matrix product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from koinize.errors import InputError

ResultRow = Mapping[str, Any]
Floats = NDArray[np.float64]

Reads = Literal["options", "text", "free"]
"""The kind of answer: an option chosen (classify, choose), a text written (generate), or what was
written beside a choice (classify with `free`)."""

# The columns that a metric compares, the truth first.
COMPARED = {
    "options": ("gold", "prediction"),
    "text": ("reference", "prediction"),
    "free": ("gold", "answer"),
}


@dataclass(frozen=True)
class Metric(ABC):
    """A number from 0 to 100 over result rows. Immutable; equal settings make equal metrics."""

    name: ClassVar[str]
    reads: ClassVar[Reads]
    margin: ClassVar[float] = 2.0
    """Points that a language may lose before it is worse, unless koinize.yaml says otherwise."""
    also: ClassVar[tuple[str, ...]] = ()
    """Columns that it reads besides the two that it compares, such as the prompt of a text."""
    version: ClassVar[int] = 1
    """Raised by whoever changes a number that this metric returns."""

    @property
    def truth(self) -> str:
        """The column that says what is right, the same for every system: gold or reference."""
        return COMPARED[self.reads][0]

    @property
    def columns(self) -> tuple[str, ...]:
        """All that it reads of a row, as text."""
        return (*COMPARED[self.reads], *self.also)

    def can_read(self, row: ResultRow) -> bool:
        """Whether the row has all of its columns."""
        return all(isinstance(row.get(column), str) for column in self.columns)

    @abstractmethod
    def row_statistics(self, row: ResultRow) -> Sequence[float]:
        """The k statistics of one row, every row the same k."""

    @abstractmethod
    def aggregate(self, sums: Floats) -> Floats:
        """Points from statistics summed over rows: shape (..., k) -> (...)."""

    def over(self, labels: Sequence[str]) -> Metric:  # noqa: ARG002
        """This metric over a fixed label set; itself where the set changes nothing."""
        return self

    def among(self, texts: Mapping[str, Sequence[str]]) -> Metric:  # noqa: ARG002
        """This metric with what stands for the labels in each language; itself where that changes
        nothing.
        """
        return self

    def by(self, judges: Mapping[str, str]) -> Metric:  # noqa: ARG002
        """This metric, of the scores by each language's judge alone; itself where it needs none."""
        return self

    def refusal(self, languages: Sequence[str]) -> str:  # noqa: ARG002
        """Why it cannot score these languages here, and what to do; empty where it can."""
        return ""

    def settings(self) -> Mapping[str, object]:
        """What else determines the number, for the signature."""
        return {}

    def signature(self, **procedure: object) -> str:
        """The recipe in one line: `rouge-l|tok:script|case:fold|v:1`.

        `procedure` adds what was done with the metric, such as `boot=2000`.
        """
        pairs = {**self.settings(), **procedure, "v": self.version}
        return "|".join([self.name, *(f"{key}:{value}" for key, value in pairs.items())])

    def statistics(self, rows: Sequence[ResultRow]) -> Floats:
        """Shape (n, k). Raises InputError for no rows, and for a row without the columns."""
        if not rows:
            raise InputError(
                f"{self.name} has no rows to score",
                expected="at least one",
                remedy="check that the split is not empty",
            )
        for row in rows:
            self._check(row)
        return np.array([self.row_statistics(row) for row in rows], dtype=np.float64)

    def _check(self, row: ResultRow) -> None:
        for column in self.columns:
            if not isinstance(row.get(column), str):
                remedy = "choose a metric that fits the task"
                if column in self.also:
                    remedy = (
                        "rows of an older koinize lack it: run `koinize doctor --mend`, then "
                        "`koinize run`, which makes them again; or take the metric out"
                    )
                raise InputError(
                    f"{self.name} cannot read column '{column}' of row '{row.get('key')}'",
                    expected=f"rows of kind '{self.reads}' with text in "
                    + " and ".join(f"'{name}'" for name in self.columns),
                    remedy=remedy,
                )


class MeanMetric(Metric):
    """A metric that is the mean of a score per row."""

    @abstractmethod
    def row_score(self, row: ResultRow) -> float:
        """The score of one row, from 0 to 1."""

    def row_statistics(self, row: ResultRow) -> Sequence[float]:
        """The row's score, and 1 for the row itself."""
        return self.row_score(row), 1.0

    def aggregate(self, sums: Floats) -> Floats:
        """100 x sum of scores / number of rows."""
        return 100.0 * sums[..., 0] / sums[..., 1]


def ratio(part: Floats, whole: Floats) -> Floats:
    """Elementwise `part / whole`, and 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
