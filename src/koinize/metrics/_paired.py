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
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from koinize.metrics._bootstrap import SEED, resample
from koinize.metrics._metric import Floats, Metric, ResultRow
from koinize.metrics._seeds import seed_error, student

STEP = 1e-4  # of an empirical influence: small for a metric, large for float64
STEEPEST = 1e3  # tilt per largest influence, beyond which a population is one value
HALVINGS = 100
WHOLE = 100.0  # points: the most that one row can be lost or won by
ONE_SEED = np.zeros(1)

Pair = tuple[Sequence[ResultRow], Sequence[ResultRow]]
"""The rows of the candidate, and those of the reference."""


@dataclass(frozen=True)
class Compared(ABC):
    """Candidate minus reference in points: as observed on `n` rows, and in each resample."""

    n: int
    observed: float
    resampled: Floats
    by_seed: Floats = field(default_factory=partial(np.zeros, 1), kw_only=True)
    """The difference of each seed of the trainings, of which `observed` is the mean."""

    @cached_property
    def seed_error(self) -> float:
        """What the seeds add to the standard error; 0 of one seed, which says nothing of others."""
        return seed_error(self.by_seed)

    @cached_property
    def _by_chance(self) -> Floats:
        """What the seeds add to each resample."""
        size = len(self.resampled)
        return self.seed_error * student(len(self.by_seed) - 1, size, SEED)

    @cached_property
    def drawn(self) -> Floats:
        """The resamples with both levels: rows, and the seeds of the trainings. The tails of few
        seeds are long; nothing differs by more than all of it.
        """
        if not self.seed_error:
            return self.resampled
        return np.clip(self.resampled + self._by_chance, -WHOLE, WHOLE)

    @abstractmethod
    def error_at(self, difference: float) -> float:
        """Standard error of the difference, were `difference` the true one; infinite where no
        population that is near the sample has it. Of rows alone, with these seeds.
        """

    def p_value(self, bound: float) -> float:
        """One-sided p-value of H0: difference <= bound; the larger one of two.

        The bootstrap's: the share of resamples at or below the bound, the sample itself counted
        in; beyond the last resample it says nothing. And a score test's: how far above the bound
        the sample lies, in standard errors of the population that has the bound for its difference
        (`error_at`). The second holds where few rows differ and where no resample reaches, the
        first where the distribution is skewed.
        """
        below = int((self.drawn <= bound).sum())
        share = (below + 1) / (len(self.drawn) + 1) if below else 0.0
        return max(share, self._by_score(bound))

    def _by_score(self, bound: float) -> float:
        """The score test's; over several seeds its mean over what they may add by chance."""
        error = self.error_at(bound)
        if not self.seed_error:
            return NormalDist().cdf(-(self.observed - bound) / error)
        from scipy.special import ndtr

        return float(ndtr(-(self.observed - bound + self._by_chance) / error).mean())

    @property
    def p_worse(self) -> float:
        """That of H0: difference >= 0, by the bootstrap alone: the interval lies below 0 where this
        is at most 2.5 %.
        """
        above = int((self.drawn >= 0).sum())
        return (above + 1) / (len(self.drawn) + 1) if above else 1 / len(self.drawn)


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
    further: Sequence[Pair] = (),
    resamples: int,
    seed: int = SEED,
) -> Paired:
    """Compare two systems. Row i of both must be the same example: a resample draws both.

    `further` has the rows of both with each further seed of the trainings, the same examples in the
    same order: a resample draws a row with all of its answers, and the difference is the mean over
    seeds.
    """
    sides = [(candidate, reference), *further]
    ours, theirs = (np.hstack([metric.statistics(side[i]) for side in sides]) for i in (0, 1))
    n = len(ours)

    def each(sums: Floats) -> list[Floats]:
        both = (np.split(some, len(sides), axis=-1) for some in np.split(sums, 2, axis=-1))
        return [
            metric.aggregate(one) - metric.aggregate(other)
            for one, other in zip(*both, strict=True)
        ]

    def difference(sums: Floats) -> Floats:
        mean: Floats = np.mean(each(sums), axis=0)
        return mean

    pairs = np.hstack([ours, theirs])
    by_seed = np.array(each(pairs[np.lexsort(pairs.T)].sum(axis=0)))
    guard = _guard(pairs, difference(pairs))
    if guard is None:
        return equal(n, resamples=resamples, seed=seed, by_seed=by_seed if further else ONE_SEED)
    population, place, counts = np.unique(
        np.vstack([pairs, guard]), axis=0, return_inverse=True, return_counts=True
    )
    observed = float(by_seed.mean())
    shares = counts / counts.sum()
    mean = shares @ population
    centre = difference(mean)
    influences = centre + (difference((1 - STEP) * mean + STEP * population) - centre) / STEP
    drawn = difference(resample(population, counts, n, resamples, seed))
    by_row = influences[place.ravel()[:n]]
    return Paired(n, observed, drawn, influences, shares, by_row, by_seed=by_seed)


def equal(n: int, *, resamples: int, seed: int = SEED, by_seed: Floats = ONE_SEED) -> Paired:
    """What n rows say of two systems that answer all of them alike, in the mean over seeds."""
    points, counts = _rule_of_three(n)
    drawn = resample(points[:, None], counts, n, resamples, seed)[:, 0]
    observed = float(by_seed.mean())
    shares, by_row = counts / counts.sum(), np.zeros(n)
    resampled = observed + drawn / n
    return Paired(n, observed, resampled, points, shares, by_row, by_seed=by_seed)


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
