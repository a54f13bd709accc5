"""ROUGE-2: F1 of the pairs of adjacent tokens that prediction and reference share."""

from __future__ import annotations

from koinize.metrics._rouge import RougeN


class Rouge2(RougeN):
    """The mean of ROUGE-2 F1 over rows."""

    name = "rouge-2"
    order = 2


metric = Rouge2()
