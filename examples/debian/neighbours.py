"""Which texts are alike: TF-IDF over character n-grams, and overlap of two short texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from indexes import WIDE
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


def ngrams(text: str) -> Counter[str]:
    """Character trigrams, and bigrams where both are Chinese or Japanese characters.

    Two such characters carry about as much as a syllable or two of a Latin script.
    """
    plain = " ".join(text.casefold().split())
    counts = Counter(plain[i : i + 3] for i in range(len(plain) - 2))
    if WIDE.search(plain):
        pairs = (plain[i : i + 2] for i in range(len(plain) - 1))
        counts.update(pair for pair in pairs if WIDE.match(pair[0]) and WIDE.match(pair[1]))
    return counts


def tfidf(texts: Sequence[str]) -> csr_matrix:
    """One L2-normalised row of (1 + log count) x log(n / document frequency) per text."""
    columns: dict[str, int] = {}
    indices: list[int] = []
    values: list[float] = []
    starts = [0]
    for text in texts:
        counts = ngrams(text)
        indices.extend(columns.setdefault(gram, len(columns)) for gram in counts)
        values.extend(counts.values())
        starts.append(len(indices))
    shape = (len(texts), max(len(columns), 1))
    matrix = csr_matrix((1 + np.log(np.array(values, dtype=float)), indices, starts), shape=shape)
    frequency = np.bincount(matrix.indices, minlength=shape[1])
    matrix.data *= np.log(len(texts) / frequency)[matrix.indices]
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix.data /= np.repeat(np.where(norms > 0, norms, 1), np.diff(matrix.indptr))
    return matrix


class Neighbourhood:
    """Which texts are near which, by the cosines of their short and long descriptions."""

    def __init__(self, shorts: Sequence[str], longs: Sequence[str]) -> None:
        matrix = tfidf([*shorts, *longs])
        short, long = matrix[: len(shorts)], matrix[len(shorts) :]
        self._fits: NDArray[np.float64] = (long @ short.T).toarray()
        self._similarities = (long @ long.T + short @ short.T).toarray() + self._fits

    def fit(self, long: int, short: int) -> float:
        """How well a short description fits a long one, judged by n-grams alone."""
        return float(self._fits[long, short])

    def nearest(self, position: int, count: int) -> list[int]:
        """The `count` nearest other texts, best first, ties by position.

        Near is what is about the same (long to long, short to short) and what an n-gram
        comparison would take for the answer (short to this long one).
        """
        order = np.argsort(-self._similarities[position], kind="stable")
        return [int(other) for other in order[: count + 1] if other != position][:count]


def overlap(one: str, other: str) -> float:
    """Dice coefficient of two texts' n-grams: 1 for the same, 0 for nothing in common."""
    first, second = ngrams(one), ngrams(other)
    total = sum(first.values()) + sum(second.values())
    return 2 * sum((first & second).values()) / total if total else float(one == other)
