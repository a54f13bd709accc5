"""ROUGE-L: F1 of the longest common subsequence of tokens, over the whole text."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.metrics._rouge import Rouge, common_subsequence


class RougeL(Rouge):
    """The mean of ROUGE-L F1 over rows."""

    name = "rouge-l"

    def overlap(self, prediction: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
        """Tokens in the longest common subsequence, and the tokens of both texts."""
        return common_subsequence(prediction, reference), len(prediction) + len(reference)


metric = RougeL()
