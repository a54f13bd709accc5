"""Accuracy of the option with the highest mean log-probability per token.

Summed log-probabilities favour short options; dividing by the number of tokens is the usual
correction (Brown et al. 2020, "Language Models are Few-Shot Learners", section 2.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from koinize.errors import InputError
from koinize.metrics._metric import MeanMetric, ResultRow


@dataclass(frozen=True)
class AccuracyNormalized(MeanMetric):
    """Accuracy with the prediction replaced by the argmax of `scores[i] / lengths[i]`.

    The names of the scored options are the row's `labels` where it has them (options are rotated
    from row to row), otherwise the label set in the task's order.
    """

    name = "accuracy-normalized"
    reads = "options"
    labels: tuple[str, ...] = ()

    def over(self, labels: Sequence[str]) -> AccuracyNormalized:
        """This metric over these labels, in the order in which the options were scored."""
        return replace(self, labels=tuple(labels))

    def row_score(self, row: ResultRow) -> float:
        """1 where the best option by mean log-probability is gold, else 0. First one wins ties."""
        labels, scores, lengths = self._options(row)
        means = [total / length for total, length in zip(scores, lengths, strict=True)]
        return float(labels[means.index(max(means))] == row["gold"])

    def _options(self, row: ResultRow) -> tuple[Sequence[str], Sequence[float], Sequence[int]]:
        labels = row.get("labels", self.labels)
        scores, lengths = row.get("scores", ()), row.get("lengths", ())
        fits = 0 < len(labels) == len(scores) == len(lengths) and min(lengths) > 0
        # Labels that do not come with the row may be in another order; then the best sum is not
        # at the prediction, and that is found out here.
        trusted = "labels" in row
        if not fits or not (trusted or row["prediction"] in _best(labels, scores)):
            raise InputError(
                f"{self.name} cannot match scores to labels in row '{row.get('key')}'",
                expected="a score, a length above 0 and a label per option, in one order, "
                "and the best score at the prediction",
                remedy="give the row 'labels': the options' names as they were scored",
            )
        return labels, scores, lengths


def _best(labels: Sequence[str], scores: Sequence[float]) -> list[str]:
    return [name for name, total in zip(labels, scores, strict=True) if total == max(scores)]


metric = AccuracyNormalized()
