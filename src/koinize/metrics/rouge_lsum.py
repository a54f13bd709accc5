"""ROUGE-Lsum: F1 of the longest common subsequences of sentences, united per reference sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from koinize.metrics._metric import ResultRow
from koinize.metrics._rouge import Rouge
from koinize.metrics._tokens import tokens

# Lines, and within them what ends with a full stop, question or exclamation mark of any script; a
# Western one only before white space, since it also stands inside of numbers and names.
SENTENCE = re.compile(r"\n|(?<=[.!?…])[ \t]+|(?<=[。！？｡။។।])")


class RougeLsum(Rouge):
    """The mean of summary-level ROUGE-L F1 over rows (Lin 2004, section 3.2).

    Of each sentence of the reference, the tokens count that are in its longest common subsequence
    with any sentence of the prediction; no token counts more often than both texts have it.
    """

    name = "rouge-lsum"

    def settings(self) -> dict[str, object]:
        """What begins a new sentence, besides the tokens."""
        return {**super().settings(), "sent": "line-stop"}

    def row_score(self, row: ResultRow) -> float:
        """2 x united hits / (tokens of the prediction + of the reference)."""
        prediction, reference = _sentences(row["prediction"]), _sentences(row["reference"])
        left = [token for one in prediction for token in one]
        right = [token for one in reference for token in one]
        hits = _union_hits(prediction, reference)
        total = len(left) + len(right)
        return 2.0 * hits / total if total else float(left == right)

    def overlap(self, prediction: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
        """Of two texts of one sentence each."""
        return _union_hits([prediction], [reference]), len(prediction) + len(reference)


def _sentences(text: str) -> list[list[str]]:
    """Tokens by sentence; what is but punctuation is none, unless the whole text is."""
    known = set(tokens(text))
    found = (tokens(one) for one in SENTENCE.split(text))
    return [one for one in found if one and known.issuperset(one)]


def _union_hits(prediction: Sequence[Sequence[str]], reference: Sequence[Sequence[str]]) -> int:
    ours = Counter(token for one in prediction for token in one)
    theirs = Counter(token for one in reference for token in one)
    hits = 0
    for sentence in reference:
        united = set[int]().union(*(_places(sentence, one) for one in prediction))
        for place in sorted(united):
            token = sentence[place]
            if ours[token] > 0 and theirs[token] > 0:
                hits += 1
                ours[token] -= 1
                theirs[token] -= 1
    return hits


def _places(reference: Sequence[str], prediction: Sequence[str]) -> set[int]:
    """Places in the reference of one longest common subsequence, by the table; of several, the one
    that is read off from the ends of both, the prediction's last token left out first.
    """
    table = [[0] * (len(prediction) + 1) for _ in range(len(reference) + 1)]
    for i, left in enumerate(reference, 1):
        for j, right in enumerate(prediction, 1):
            longest = max(table[i - 1][j], table[i][j - 1])
            table[i][j] = table[i - 1][j - 1] + 1 if left == right else longest
    places, i, j = set(), len(reference), len(prediction)
    while i > 0 and j > 0:
        if reference[i - 1] == prediction[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places


metric = RougeLsum()
