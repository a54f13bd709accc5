"""Free accuracy: the share of rows to which the model wrote the right label's text."""

from __future__ import annotations

from koinize.metrics._metric import MeanMetric, ResultRow


class FreeAccuracy(MeanMetric):
    """100 x rows with `answer == gold` / rows; a text that is no label's is a miss."""

    name = "free-accuracy"
    reads = "free"

    def row_score(self, row: ResultRow) -> float:
        """1 for a hit, 0 for a miss."""
        return float(row["answer"] == row["gold"])


metric = FreeAccuracy()
