"""Not repeated: how many of a text's runs of four tokens are different; 100 less the repetition.

Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training": seq-rep-4.
"""

from __future__ import annotations

from koinize.metrics._metric import MeanMetric, ResultRow
from koinize.metrics._tokens import tokens

ORDER = 4


class NotRepeated(MeanMetric):
    """The mean over rows of different 4-grams / 4-grams; a text without one repeats nothing."""

    name = "not-repeated"
    reads = "text"

    def settings(self) -> dict[str, object]:
        """The tokens and the length of a run."""
        return {"tok": "script", "case": "fold", "n": ORDER}

    def row_score(self, row: ResultRow) -> float:
        """1 less seq-rep-4."""
        words = tokens(row["prediction"])
        runs = list(zip(*(words[start:] for start in range(ORDER)), strict=False))
        return len(set(runs)) / len(runs) if runs else 1.0


metric = NotRepeated()
