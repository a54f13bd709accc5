"""chrF: character n-gram F-score (Popović 2015, "chrF: character n-gram F-score for automatic MT
evaluation"), in the corpus-level form and with the defaults of sacreBLEU 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from koinize.metrics._metric import Floats, Metric, ResultRow, ratio

ORDER = 6
BETA = 2


class ChrF(Metric):
    """chrF2 over n-grams of 1 to 6 characters, white space left out, case kept.

    Counts are summed over rows before precision and recall are taken, so long rows weigh more.
    """

    name = "chrf"
    reads = "text"
    margin = 1.0

    def settings(self) -> dict[str, object]:
        """The same words as in sacreBLEU's signature."""
        return {"case": "mixed", "eff": "yes", "nc": ORDER, "nw": 0, "space": "no", "beta": BETA}

    def row_statistics(self, row: ResultRow) -> Sequence[float]:
        """Per order: n-grams of the prediction, of the reference, and shared ones."""
        prediction, reference = _packed(row["prediction"]), _packed(row["reference"])
        statistics: list[float] = []
        for order in range(1, ORDER + 1):
            left, right = _ngrams(prediction, order), _ngrams(reference, order)
            # A prediction is not charged for an order that its reference is too short to have.
            charged = left.total() if right else 0
            statistics += [charged, right.total(), (left & right).total()]
        return statistics

    def aggregate(self, sums: Floats) -> Floats:
        """100 x F2 of mean precision and mean recall over the orders that both sides have."""
        counts = sums.reshape(*sums.shape[:-1], ORDER, 3)
        ours, theirs, shared = counts[..., 0], counts[..., 1], counts[..., 2]
        used = (ours > 0) & (theirs > 0)
        orders = used.sum(axis=-1).astype(float)
        precision = ratio((ratio(shared, ours) * used).sum(axis=-1), orders)
        recall = ratio((ratio(shared, theirs) * used).sum(axis=-1), orders)
        weight = BETA**2
        return 100.0 * ratio((1 + weight) * precision * recall, weight * precision + recall)


def _packed(text: str) -> str:
    return "".join(text.split())


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


metric = ChrF()
