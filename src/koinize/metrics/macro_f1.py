"""Macro-F1: the mean over labels of the harmonic mean of precision and recall."""

from __future__ import annotations

from koinize.metrics._macro import MacroMetric


class MacroF1(MacroMetric):
    """2 x hits / (predicted + gold) per label, then the mean."""

    name = "macro-f1"
    precision_weight = 0.5


metric = MacroF1()
