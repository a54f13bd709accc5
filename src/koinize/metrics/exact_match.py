"""Exact match: the share of rows whose text is the reference, up to white space."""

from __future__ import annotations

import unicodedata

from koinize.metrics._metric import MeanMetric, ResultRow


class ExactMatch(MeanMetric):
    """100 x rows with equal texts / rows; runs of white space are one space, case counts."""

    name = "exact-match"
    reads = "text"

    def settings(self) -> dict[str, object]:
        """Normal form and case."""
        return {"norm": "nfc", "case": "mixed"}

    def row_score(self, row: ResultRow) -> float:
        """1 for equal texts, 0 for different ones."""
        return float(_normal(row["prediction"]) == _normal(row["reference"]))


def _normal(text: str) -> str:
    # Canonical equivalence only: a composed and a decomposed accent are the same letter.
    return " ".join(unicodedata.normalize("NFC", text).split())


metric = ExactMatch()
