"""The outer level of an interval: what a difference owes to the seeds of the trainings.

Systems that were trained k times have k differences on the same rows. Their mean errs by the rows,
which are resampled, and by the seeds. The latter are too few to be resampled: of k values drawn
with replacement the variance is (k - 1) / k of what it should be, and has no long tails. So what is
added to each resample is s / sqrt(k) times a draw from Student's t with k - 1 degrees of freedom, s
the standard deviation of the k differences: the Behrens-Fisher distribution (Fisher 1935, "The
fiducial argument in statistical inference"), with a bootstrap for the one of its two parts.
"""

from __future__ import annotations

import math

import numpy as np

from koinize.metrics._metric import Floats


def seed_error(by_seed: Floats) -> float:
    """Standard error of the mean of the differences (k,) of k seeds; 0 of one."""
    k = len(by_seed)
    return float(by_seed.std(ddof=1)) / math.sqrt(k) if k > 1 else 0.0


def student(degrees: int, size: int, seed: int) -> Floats:
    """So many values of Student's t in random order: its quantiles at (i + 1/2) / size, so that
    their distribution is without noise.
    """
    from scipy.special import stdtrit

    quantiles = stdtrit(degrees, (np.arange(size) + 0.5) / size)
    return np.random.default_rng([seed, degrees]).permutation(quantiles)
