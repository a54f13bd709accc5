"""Free macro-F1: macro-F1 of the labels that the model wrote."""

from __future__ import annotations

from koinize.metrics._macro import MacroMetric


class FreeMacroF1(MacroMetric):
    """As macro-F1; a text that is no label's predicts none, and costs its label the recall."""

    name = "free-macro-f1"
    reads = "free"
    precision_weight = 0.5


metric = FreeMacroF1()
