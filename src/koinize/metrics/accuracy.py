"""Accuracy: the share of rows whose prediction is the gold label."""

from __future__ import annotations

from koinize.metrics._metric import MeanMetric, ResultRow


class Accuracy(MeanMetric):
    """100 x rows with `prediction == gold` / rows."""

    name = "accuracy"
    reads = "options"

    def row_score(self, row: ResultRow) -> float:
        """1 for a hit, 0 for a miss."""
        return float(row["prediction"] == row["gold"])


metric = Accuracy()
