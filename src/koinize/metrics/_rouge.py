"""ROUGE (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"), F1 form."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence

from koinize.metrics._metric import MeanMetric, ResultRow
from koinize.metrics._tokens import tokens


class Rouge(MeanMetric):
    """The mean over rows of an F1 between the units of the prediction and of the reference.

    A pair in which neither text has a unit scores 1 when the tokens are equal and 0 otherwise.
    """

    reads = "text"
    margin = 1.0

    def settings(self) -> dict[str, object]:
        """Tokens by script; case folded."""
        return {"tok": "script", "case": "fold"}

    @abstractmethod
    def overlap(self, prediction: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
        """Units that two token lists share, and the units of both added."""

    def row_score(self, row: ResultRow) -> float:
        """F1 of one row: 2 x shared units / (units of the prediction + of the reference)."""
        prediction, reference = tokens(row["prediction"]), tokens(row["reference"])
        shared, total = self.overlap(prediction, reference)
        return 2.0 * shared / total if total else float(prediction == reference)


class RougeN(Rouge):
    """ROUGE-N: units are runs of `order` tokens, shared as often as both texts have them."""

    order: int

    def overlap(self, prediction: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
        """Shared and total n-grams, repetitions counted."""
        left, right = _ngrams(prediction, self.order), _ngrams(reference, self.order)
        return (left & right).total(), left.total() + right.total()


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, one big-integer step per token of `right`.

    Bit-parallel recurrence of Hyyrö 2004, "Bit-parallel LCS-length computation revisited": bit i
    of `row` is 0 where the LCS of `right` so far grows at position i of `left`.
    """
    places: dict[str, int] = {}
    for position, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << position
    full = (1 << len(left)) - 1
    row = full
    for token in right:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(left) - row.bit_count()
