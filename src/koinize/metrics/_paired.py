"""Two systems on the same rows: the difference of a metric, its resamples, and its p-values.

What a sample does not hold, a bootstrap never draws: where few rows differ, the plain one calls
losses impossible that are merely unseen. So n rows are drawn from n + 2: one win and one loss of
the largest size are added to the population (the idea of Agresti and Min 2005, "Simple improved
confidence intervals for comparing matched proportions"). Where no row differs at all, the two are
of 100 points, and the interval becomes the rule of three: +-300/n.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from koinize.metrics._bootstrap import SEED, resample
from koinize.metrics._metric import Floats, Metric, ResultRow

STEP = 1e-4  # of an empirical influence: small for a metric, large for float64
STEEPEST = 1e3  # tilt per largest influence, beyond which a population is one value
HALVINGS = 100
WHOLE = 100.0  # points: the most that one row can be lost or won by


@dataclass(frozen=True)
class Compared(ABC):
    """Candidate minus reference in points: as observed on `n` rows, and in each resample."""

    n: int
    observed: float
    resampled: Floats

    @abstractmethod
    def error_at(self, difference: float) -> float:
        """Standard error of the difference, were `difference` the true one; infinite where no
        population that is near the sample has it.
        """

    def p_value(self, bound: float) -> float:
        """One-sided p-value of H0: difference <= bound; the larger one of two.

        The bootstrap's: the share of resamples at or below the bound, the sample itself counted
        in; beyond the last resample it says nothing. And a score test's: how far above the bound
        the sample lies, in standard errors of the population that has the bound for its difference
        (`error_at`). The second holds where few rows differ and where no resample reaches, the
        first where the distribution is skewed.
        """
        below = int((self.resampled <= bound).sum())
        share = (below + 1) / (len(self.resampled) + 1) if below else 0.0
        distance = (self.observed - bound) / self.error_at(bound)
        return max(share, NormalDist().cdf(-distance))

    @property
    def p_worse(self) -> float:
        """That of H0: difference >= 0, by the bootstrap alone: the interval lies below 0 where this
        is at most 2.5 %.
        """
        above = int((self.resampled >= 0).sum())
        return (above + 1) / (len(self.resampled) + 1) if above else 1 / len(self.resampled)


@dataclass(frozen=True)
class Paired(Compared):
    """One set of rows.

    `influences` (k,) are what each distinct row of the guarded population adds to the difference,
    in points; their mean, weighted with `shares` (k,), is the difference itself. `by_row` (n,) has
    them in the order of the rows.
    """

    influences: Floats
    shares: Floats
    by_row: Floats

    def error_at(self, difference: float) -> float:
        """Standard error of the difference, were `difference` the true one.

        That population is the guarded sample with its rows weighted by exp(tilt x influence), the
        nearest one by Kullback-Leibler divergence (Efron 1981, "Nonparametric standard errors and
        confidence intervals"). A sample that happens to hold few losses thus does not pass for
        proof that losses are rare. Where no row differs by so much, no weights reach the
        difference, and it is as if none differed: one loss and one win of 100 points are added.
        Infinite from there on.
        """
        low, high = float(self.influences.min()), float(self.influences.max())
        if not low < difference < high:
            if abs(difference) >= WHOLE:
                return math.inf
            return self.as_if_equal().error_at(difference)
        scaled, target = self.influences / max(-low, high), difference / max(-low, high)
        tilt = bisect(lambda tilt: float(tilted(self.shares, tilt * scaled) @ scaled), target)
        weights = tilted(self.shares, tilt * scaled)
        spread = weights @ (self.influences - difference) ** 2
        return math.sqrt(float(spread) / self.n)

    def as_if_equal(self) -> Paired:
        """The same rows, had none of them differed."""
        points, counts = _rule_of_three(self.n)
        return replace(self, influences=points, shares=counts / counts.sum())


def tilted(shares: Floats, exponents: Floats) -> Floats:
    """Shares (k,) weighted by the exponential of what is given for each, summing to 1."""
    weights: Floats = shares * np.exp(exponents - exponents.max())
    weights /= weights.sum()
    return weights


def bisect(rising: Callable[[float], float], target: float) -> float:
    """The tilt at which a function of it that rises has this value."""
    low, high = -STEEPEST, STEEPEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def paired(
    metric: Metric,
    candidate: Sequence[ResultRow],
    reference: Sequence[ResultRow],
    *,
    resamples: int,
    seed: int = SEED,
) -> Paired:
    """Compare two systems. Row i of both must be the same example: a resample draws both."""
    ours, theirs = metric.statistics(candidate), metric.statistics(reference)
    n, width = ours.shape

    def difference(sums: Floats) -> Floats:
        return metric.aggregate(sums[..., :width]) - metric.aggregate(sums[..., width:])

    pairs = np.hstack([ours, theirs])
    guard = _guard(pairs, difference(pairs))
    if guard is None:
        return equal(n, resamples=resamples, seed=seed)
    population, place, counts = np.unique(
        np.vstack([pairs, guard]), axis=0, return_inverse=True, return_counts=True
    )
    observed = float(difference(pairs[np.lexsort(pairs.T)].sum(axis=0)))
    shares = counts / counts.sum()
    mean = shares @ population
    centre = difference(mean)
    influences = centre + (difference((1 - STEP) * mean + STEP * population) - centre) / STEP
    drawn = difference(resample(population, counts, n, resamples, seed))
    return Paired(n, observed, drawn, influences, shares, influences[place.ravel()[:n]])


def equal(n: int, *, resamples: int, seed: int = SEED) -> Paired:
    """What n rows say of two systems that answer all of them alike."""
    points, counts = _rule_of_three(n)
    drawn = resample(points[:, None], counts, n, resamples, seed)[:, 0]
    return Paired(n, 0.0, drawn / n, points, counts / counts.sum(), np.zeros(n))


def paired_differences(
    metric: Metric,
    candidate: Sequence[ResultRow],
    reference: Sequence[ResultRow],
    *,
    resamples: int,
    seed: int = SEED,
) -> tuple[float, Floats]:
    """The difference in points as observed, and in each of the resamples."""
    found = paired(metric, candidate, reference, resamples=resamples, seed=seed)
    return found.observed, found.resampled


def _rule_of_three(n: int) -> tuple[Floats, NDArray[np.int64]]:
    """What a difference per row can be where none was seen, and how often: once lost, once won."""
    return np.array([-WHOLE, 0.0, WHOLE]), np.array([1, n, 1])


def _guard(pairs: Floats, gaps: NDArray[np.float64]) -> Floats | None:
    """Two pairs, a loss and a win: the mean of the pairs with the largest gap, both ways round."""
    largest = np.abs(gaps).max()
    if largest == 0:
        return None
    swapped = np.roll(pairs, pairs.shape[1] // 2, axis=1)
    wins = np.where(gaps[:, None] > 0, pairs, swapped)[np.abs(gaps) == largest]
    win = wins.mean(axis=0)
    return np.stack([win, np.roll(win, len(win) // 2)])
