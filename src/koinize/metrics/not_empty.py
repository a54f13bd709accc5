"""Not empty: the share of texts that say something; 100 less the empty rate."""

from __future__ import annotations

from koinize.metrics._metric import MeanMetric, ResultRow
from koinize.metrics._tokens import tokens


class NotEmpty(MeanMetric):
    """100 x texts with a visible character / rows; white space and format characters are none."""

    name = "not-empty"
    reads = "text"

    def row_score(self, row: ResultRow) -> float:
        """1 for a text with a letter, digit or sign."""
        return float(bool(tokens(row["prediction"])))


metric = NotEmpty()
