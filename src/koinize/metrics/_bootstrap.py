"""Percentile bootstrap over rows (Efron 1979): the interval of a score, and of a paired difference.

Drawing n rows with replacement and counting how often each distinct vector of statistics came up
is one multinomial draw. So equal rows are grouped first: that is exact, fast where few vectors
exist (classification), and sorts the rows, which makes every result independent of their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from koinize.metrics._metric import Floats, Metric, ResultRow

RESAMPLES = 2_000
SEED = 12_345
LEVEL = 95
CHUNK_CELLS = 1 << 21  # counts held at once: 16 MiB of float64


@dataclass(frozen=True, slots=True)
class Score:
    """A value in points (0 to 100), its 95 % interval, the rows behind it and its recipe."""

    value: float
    low: float
    high: float
    n: int
    signature: str

    def to_dict(self) -> dict[str, float | int | str]:
        """Plain values for JSON; `Score(**plain)` is the way back."""
        return asdict(self)


def score(
    metric: Metric,
    rows: Sequence[ResultRow],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Score:
    """Score rows with a metric, over its label set where it has one (`metric.over(labels)`).

    The interval is the 2.5th to the 97.5th percentile of the metric over resampled rows. Raises
    InputError for no rows and for rows that the metric cannot read.
    """
    distinct, counts = np.unique(metric.statistics(rows), axis=0, return_counts=True)
    low, high = interval(metric.aggregate(_resample(distinct, counts, len(rows), resamples, seed)))
    return Score(
        value=float(metric.aggregate(counts @ distinct)),
        low=low,
        high=high,
        n=len(rows),
        signature=metric.signature(boot=resamples, seed=seed, level=LEVEL),
    )


def paired_differences(
    metric: Metric,
    candidate: Sequence[ResultRow],
    reference: Sequence[ResultRow],
    *,
    resamples: int,
    seed: int = SEED,
) -> tuple[float, Floats]:
    """Candidate minus reference in points: as observed, and in each of the resamples.

    Row i of both must be the same example: a resample draws the two together.

    What a sample does not hold, a bootstrap never draws: where few rows differ, the plain one
    calls losses impossible that are merely unseen. So n rows are drawn from n + 2: one win and
    one loss of the largest size are added to the population (the idea of Agresti and Min 2005,
    "Simple improved confidence intervals for comparing matched proportions"). Where no row
    differs at all, the two are of 100 points, and the interval becomes the rule of three: +-300/n.
    """
    ours, theirs = metric.statistics(candidate), metric.statistics(reference)
    n, width = ours.shape

    def difference(sums: Floats) -> Floats:
        return metric.aggregate(sums[..., :width]) - metric.aggregate(sums[..., width:])

    pairs = np.hstack([ours, theirs])
    guard = _guard(pairs, difference(pairs))
    if guard is None:
        signs = np.array([[-1.0], [0.0], [1.0]])
        wins = _resample(signs, np.array([1, n, 1]), n, resamples, seed)
        return 0.0, 100.0 * wins[:, 0] / n
    population, counts = np.unique(np.vstack([pairs, guard]), axis=0, return_counts=True)
    observed = difference(pairs[np.lexsort(pairs.T)].sum(axis=0))
    return float(observed), difference(_resample(population, counts, n, resamples, seed))


def _guard(pairs: Floats, gaps: Floats) -> Floats | None:
    """Two pairs, a loss and a win: the mean of the pairs with the largest gap, both ways round."""
    largest = np.abs(gaps).max()
    if largest == 0:
        return None
    swapped = np.roll(pairs, pairs.shape[1] // 2, axis=1)
    wins = np.where(gaps[:, None] > 0, pairs, swapped)[np.abs(gaps) == largest]
    win = wins.mean(axis=0)
    return np.stack([win, np.roll(win, len(win) // 2)])


def interval(values: Floats) -> tuple[float, float]:
    """The central 95 % of resampled values."""
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _resample(
    distinct: Floats, counts: NDArray[np.int_], n: int, resamples: int, seed: int
) -> Floats:
    """Statistics (m, k) of rows met `counts` times, summed over draws of n rows: (resamples, k)."""
    generator = np.random.default_rng(seed)
    shares = counts / counts.sum()
    # Chunks bound the memory and do not change what is drawn.
    chunk = max(1, CHUNK_CELLS // len(counts))
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    # float64 so that the product with the statistics runs in BLAS.
    draws = (generator.multinomial(n, shares, size=size).astype(np.float64) for size in sizes)
    return np.concatenate([drawn @ distinct for drawn in draws])
