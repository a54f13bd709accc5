"""Number recall: of the numbers in the reference, the share that the text has."""

from __future__ import annotations

from koinize.metrics._metric import MeanMetric, ResultRow
from koinize.metrics._numbers import numbers


class NumberRecall(MeanMetric):
    """The mean over rows of different numbers of the reference that the text has / all of them.

    A reference without a number asks for none, and its row scores 1.
    """

    name = "number-recall"
    reads = "text"

    def settings(self) -> dict[str, object]:
        """The normal form, and what a reference without a number is worth."""
        return {"norm": "nfkc", "none": 100}

    def row_score(self, row: ResultRow) -> float:
        """Numbers that both have / numbers of the reference."""
        wanted = set(numbers(row["reference"]))
        return len(wanted & set(numbers(row["prediction"]))) / len(wanted) if wanted else 1.0


metric = NumberRecall()
