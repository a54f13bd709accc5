"""Macro precision: of the rows given a label, the share that deserved it; mean over labels."""

from __future__ import annotations

from koinize.metrics._macro import MacroMetric


class Precision(MacroMetric):
    """Hits / predicted per label, 0 for a label never predicted, then the mean."""

    name = "precision"
    precision_weight = 1.0


metric = Precision()
