"""Not copied: the share of texts that are no piece of their prompt; 100 less the copy rate."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.metrics._metric import MeanMetric, ResultRow
from koinize.metrics._tokens import stands_in, tokens

LEAST = 8  # tokens


class NotCopied(MeanMetric):
    """100 x (1 - copies / rows).

    A copy is a text of at least 8 tokens that stand in the prompt in one run. Where the reference
    is one, too, it may be right.
    """

    name = "not-copied"
    reads = "text"
    also = ("prompt",)

    def settings(self) -> dict[str, object]:
        """The tokens, and how many make a copy."""
        return {"tok": "script", "case": "fold", "least": LEAST}

    def row_score(self, row: ResultRow) -> float:
        """0 for a copy."""
        prompt = tokens(row["prompt"])
        is_copy = _copied(prompt, tokens(row["prediction"]))
        return float(not is_copy or _copied(prompt, tokens(row["reference"])))


def _copied(prompt: Sequence[str], text: Sequence[str]) -> bool:
    return len(text) >= LEAST and stands_in(text, prompt)


metric = NotCopied()
