"""ROUGE-1: F1 of the single tokens that prediction and reference share."""

from __future__ import annotations

from koinize.metrics._rouge import RougeN


class Rouge1(RougeN):
    """The mean of ROUGE-1 F1 over rows."""

    name = "rouge-1"
    order = 1


metric = Rouge1()
