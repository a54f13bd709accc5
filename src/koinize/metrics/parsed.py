"""Parsed: the share of written answers that are a label's text; 100 less the parse failures."""

from __future__ import annotations

from koinize.metrics._metric import MeanMetric, ResultRow


class Parsed(MeanMetric):
    """100 x (1 - rows whose text is no verbalizer of their language / rows)."""

    name = "parsed"
    reads = "free"

    def row_score(self, row: ResultRow) -> float:
        """0 for a parse failure."""
        return float(row["answer"] != "")


metric = Parsed()
