"""Percentile bootstrap over rows (Efron 1979): the interval of a score.

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
    low, high = interval(metric.aggregate(resample(distinct, counts, len(rows), resamples, seed)))
    return Score(
        value=float(metric.aggregate(counts @ distinct)),
        low=low,
        high=high,
        n=len(rows),
        signature=metric.signature(boot=resamples, seed=seed, level=LEVEL),
    )


def interval(values: Floats) -> tuple[float, float]:
    """The central 95 % of resampled values."""
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def resample(
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
