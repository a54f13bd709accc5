"""How much of a choice on dev is luck: who would have won on other rows of the same kind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from koinize.metrics import SEED, Metric, resample
from koinize.search.evidence import Rows

RESAMPLES = 1_000


def chances(
    metric: Metric, candidates: Mapping[str, Rows], *, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, float]:
    """The share of resamples of the dev rows in which each candidate is the best, from 0 to 1.

    Bootstrap over the rows of each language (Efron 1979), the same rows for all candidates; the
    best is that of the plain mean over languages, and equals share. Row i of a language has to be
    the same example in all of them.
    """
    names = list(candidates)
    means = np.zeros((resamples, len(names)))
    for number, language in enumerate(candidates[names[0]]):
        each = [metric.statistics(candidates[name][language]) for name in names]
        distinct, counts = np.unique(np.hstack(each), axis=0, return_counts=True)
        sums = resample(distinct, counts, len(each[0]), resamples, seed + number)
        means += metric.aggregate(sums.reshape(resamples, len(names), -1))
    best = np.isclose(means, means.max(axis=1, keepdims=True), rtol=0, atol=1e-9)
    shares = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(names, map(float, shares), strict=True))
