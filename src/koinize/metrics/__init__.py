"""Metrics: result rows -> per-row statistics -> a score from 0 to 100 that carries its recipe.

A metric is one file of this package whose attribute `metric` is a `Metric`; its name is the file's.
`docs/metrics.md` has every formula and the reasons for the choices.
"""

from __future__ import annotations

from koinize.catalog import Catalog
from koinize.metrics._bootstrap import (
    LEVEL,
    RESAMPLES,
    SEED,
    Score,
    interval,
    resample,
    score,
)
from koinize.metrics._calibrated import CalibratedMetric
from koinize.metrics._judged import JudgedMetric
from koinize.metrics._matching import matched
from koinize.metrics._metric import MeanMetric, Metric, ResultRow
from koinize.metrics._paired import Compared, Pair, Paired, equal, paired, paired_differences
from koinize.metrics._pooled import Pooled, pooled

metrics = Catalog[Metric]("koinize.metrics", "metric")

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "SEED",
    "CalibratedMetric",
    "Compared",
    "JudgedMetric",
    "MeanMetric",
    "Metric",
    "Pair",
    "Paired",
    "Pooled",
    "ResultRow",
    "Score",
    "equal",
    "interval",
    "matched",
    "metrics",
    "paired",
    "paired_differences",
    "pooled",
    "resample",
    "score",
]
