"""Macro recall: of the rows that deserve a label, the share given it; mean over labels."""

from __future__ import annotations

from koinize.metrics._macro import MacroMetric


class Recall(MacroMetric):
    """Hits / gold per label, then the mean."""

    name = "recall"
    precision_weight = 0.0


metric = Recall()
