"""The mean of the languages' differences, with one interval and one p-value.

Where every language alone has too few rows, their mean may still show a loss. Languages are
resampled apart (stratified), each with its own guard (`_paired`). Where rows of several languages
are one example in translation, which a shared key says, they tend to be lost together: the
sampling error is then that of examples and not of rows, if it is the larger one (the variance of
clusters of influences over that of rows; Kish 1965, "Survey Sampling": the design effect).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from koinize.metrics._bootstrap import SEED
from koinize.metrics._metric import Floats, Metric, ResultRow
from koinize.metrics._paired import WHOLE, Compared, Pair, Paired, bisect, paired, tilted


@dataclass(frozen=True)
class Pooled(Compared):
    """The plain mean over languages; `n` is the rows of all of them.

    `widening` is by how much standard errors grow because rows of several languages are one
    example: 1 where keys are not shared.
    """

    parts: tuple[Paired, ...]
    widening: float

    def error_at(self, difference: float) -> float:
        """As in `Paired`: every language's rows are weighted by exp(tilt x influence), with one
        tilt for what a row adds to the mean, such that the mean over languages is `difference`.
        """
        if abs(difference) >= WHOLE:
            return math.inf
        low = np.mean([part.influences.min() for part in self.parts])
        high = np.mean([part.influences.max() for part in self.parts])
        if not low < difference < high:
            equal = tuple(part.as_if_equal() for part in self.parts)
            return replace(self, parts=equal).error_at(difference)
        weights = self._tilted(difference)
        variance = 0.0
        for part, shares in zip(self.parts, weights, strict=True):
            mean = shares @ part.influences
            variance += float(shares @ (part.influences - mean) ** 2) / part.n
        return self.widening * math.sqrt(variance) / len(self.parts)

    def _tilted(self, difference: float) -> list[Floats]:
        """The shares of every language's rows, such that the mean of their means is this."""
        added = [part.influences / part.n for part in self.parts]  # to the mean, times languages
        largest = max(float(np.abs(one).max()) for one in added)

        def shares(tilt: float) -> list[Floats]:
            pairs = zip(self.parts, added, strict=True)
            return [tilted(part.shares, tilt * one / largest) for part, one in pairs]

        def mean(tilt: float) -> float:
            pairs = zip(shares(tilt), self.parts, strict=True)
            return float(np.mean([weights @ part.influences for weights, part in pairs]))

        return shares(bisect(mean, difference))


def pooled(
    metric: Metric,
    candidate: Mapping[str, Sequence[ResultRow]],
    reference: Mapping[str, Sequence[ResultRow]],
    keys: Mapping[str, Sequence[Hashable]],
    *,
    further: Mapping[str, Sequence[Pair]] | None = None,
    resamples: int,
    seed: int = SEED,
) -> Pooled:
    """Compare two systems over languages. Row i of both is one example, in every language, whose
    key is `keys[language][i]`; rows of several languages with one key count as one example.
    `further` has the same with further seeds, by language: what a seed changes in one language it
    may change in all, so the spread over seeds is that of the mean over languages.
    """
    languages = sorted(candidate)
    others = further or {}
    parts = tuple(
        paired(
            metric,
            candidate[one],
            reference[one],
            further=others.get(one, ()),
            resamples=resamples,
            seed=seed + place,
        )
        for place, one in enumerate(languages)
    )
    observed = float(np.mean([part.observed for part in parts]))
    resampled = np.mean([part.resampled for part in parts], axis=0)
    widening = _widening([keys[one] for one in languages], parts)
    return Pooled(
        n=sum(part.n for part in parts),
        observed=observed,
        resampled=observed + widening * (resampled - observed),
        by_seed=np.mean([part.by_seed for part in parts], axis=0),
        parts=parts,
        widening=widening,
    )


def _widening(keys: Sequence[Sequence[Hashable]], parts: Sequence[Paired]) -> float:
    """Standard error of the examples over that of the rows, at least 1. Where no row differs
    nothing says how much they have in common, so all that share a key count as one.
    """
    together: dict[Hashable, float] = defaultdict(float)
    met: Counter[Hashable] = Counter()
    apart = 0.0
    for names, part in zip(keys, parts, strict=True):
        added = (part.by_row - part.by_row.mean()) / part.n
        apart += float(added @ added)
        met.update(names)
        for name, one in zip(names, added.tolist(), strict=True):
            together[name] += one
    if len(met) == met.total():
        return 1.0
    if apart == 0:
        return math.sqrt(max(met.values()))
    return math.sqrt(max(1.0, sum(one**2 for one in together.values()) / apart))
