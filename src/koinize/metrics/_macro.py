"""Macro averages: one ratio per label of a fixed set, then their plain mean.

Precision, recall and F1 are one formula (van Rijsbergen 1979, "Information Retrieval", chapter 7):
hits / (weight x predicted + (1 - weight) x gold), with a weight of 1, 0 and 1/2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from koinize.digest import digest, short
from koinize.errors import InputError
from koinize.metrics._metric import COMPARED, Floats, Metric, Reads, ResultRow, ratio


@dataclass(frozen=True)
class MacroMetric(Metric):
    """A ratio per label, averaged over the labels of the fixed set that have gold rows.

    A label without gold rows asks nothing, so it is left out: a perfect system scores 100 on every
    sample, and two systems compared on the same rows always share their denominator. To predict
    such a label still costs the recall of the label that was right.
    """

    reads: ClassVar[Reads] = "options"
    precision_weight: ClassVar[float]
    labels: tuple[str, ...] = ()

    def over(self, labels: Sequence[str]) -> MacroMetric:
        """This metric over these labels, in any order."""
        return replace(self, labels=tuple(sorted(set(labels))))

    def settings(self) -> Mapping[str, object]:
        """The average, the number of labels with the digest of their names, and the rule above."""
        identity = short(digest(self.labels))
        return {"avg": "macro", "labels": f"{len(self.labels)}-{identity}", "absent": "skip"}

    def row_statistics(self, row: ResultRow) -> Sequence[float]:
        """Hits, predictions, gold rows: one number per label each. No answer predicts no label."""
        truth, answer = COMPARED[self.reads]
        gold, width = self._index(row, truth), len(self.labels)
        counts = [0.0] * (3 * width)
        counts[2 * width + gold] = 1.0
        if row[answer] or self.reads != "free":
            prediction = self._index(row, answer)
            counts[width + prediction] = 1.0
            counts[gold] = float(gold == prediction)
        return counts

    def aggregate(self, sums: Floats) -> Floats:
        """100 x mean of the per-label ratios over the labels with gold rows."""
        counts = sums.reshape(*sums.shape[:-1], 3, len(self.labels))
        hits, predicted, gold = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
        weight = self.precision_weight
        per_label = ratio(hits, weight * predicted + (1.0 - weight) * gold)
        # Without gold rows there are no hits: a label that is left out adds 0 to the sum.
        mean: Floats = 100.0 * per_label.sum(axis=-1) / (gold > 0).sum(axis=-1)
        return mean

    def _index(self, row: ResultRow, column: str) -> int:
        try:
            return self.labels.index(row[column])
        except ValueError:
            raise InputError(
                f"{self.name} met label '{row[column]}' as {column} of row '{row.get('key')}'",
                expected=f"one of: {', '.join(self.labels) or '(no label set was given)'}",
                remedy="give the metric the whole label set of the task",
            ) from None
