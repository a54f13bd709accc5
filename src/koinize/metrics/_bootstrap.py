"""Percentile bootstrap over rows (Efron 1979): the interval of a score, and of a paired difference.

Drawing n rows with replacement and counting how often each distinct vector of statistics came up
is one multinomial draw. So equal rows are grouped first: that is exact, fast where few vectors
exist (classification), and sorts the rows, which makes every result independent of their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

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
    total, resampled = _sums(metric.statistics(rows), resamples, seed)
    low, high = interval(metric.aggregate(resampled))
    return Score(
        value=float(metric.aggregate(total)),
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
    """
    pair = metric.statistics(candidate), metric.statistics(reference)
    width = pair[0].shape[1]
    total, resampled = _sums(np.hstack(pair), resamples, seed)

    def difference(sums: Floats) -> Floats:
        return metric.aggregate(sums[..., :width]) - metric.aggregate(sums[..., width:])

    return float(difference(total)), difference(resampled)


def interval(values: Floats) -> tuple[float, float]:
    """The central 95 % of resampled values."""
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _sums(statistics: Floats, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Statistics (n, k) summed over all rows, (k,), and over each resample, (resamples, k)."""
    distinct, counts = np.unique(statistics, axis=0, return_counts=True)
    chunks = [draws @ distinct for draws in _draws(counts, resamples, seed)]
    return counts @ distinct, np.concatenate(chunks)


def _draws(counts: np.ndarray, resamples: int, seed: int) -> Iterator[Floats]:
    """Resamples as counts per distinct row, in chunks that do not change what is drawn."""
    n = int(counts.sum())
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // len(counts))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        # float64 so that the product with the statistics runs in BLAS.
        yield generator.multinomial(n, counts / n, size=size).astype(np.float64)
