"""Number precision: of the numbers in the text, the share that prompt or reference has."""

from __future__ import annotations

from koinize.metrics._metric import MeanMetric, ResultRow
from koinize.metrics._numbers import numbers


class NumberPrecision(MeanMetric):
    """The mean over rows of numbers that stand in the prompt or in the reference / numbers.

    A text without a number has none that is wrong, and scores 1: read it with number-recall.
    """

    name = "number-precision"
    reads = "text"
    also = ("prompt",)

    def settings(self) -> dict[str, object]:
        """The normal form, where a number may come from, and what silence is worth."""
        return {"norm": "nfkc", "in": "prompt-reference", "none": 100}

    def row_score(self, row: ResultRow) -> float:
        """Known numbers / numbers, each as often as it is written."""
        known = {*numbers(row["prompt"]), *numbers(row["reference"])}
        written = numbers(row["prediction"])
        return sum(one in known for one in written) / len(written) if written else 1.0


metric = NumberPrecision()
