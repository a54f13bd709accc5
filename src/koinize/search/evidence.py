"""What dev can tell of two systems on the same rows, in all languages together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from koinize.metrics import Metric, ResultRow, pooled

Rows = Mapping[str, Sequence[ResultRow]]
"""One system's result rows by language; row i is the same example for every system."""


@dataclass(frozen=True)
class Evidence:
    """A difference, the larger the better for the first of two systems, and its standard error."""

    difference: float
    error: float

    @property
    def tells(self) -> bool:
        """Whether the difference is beyond one standard error."""
        return abs(self.difference) > self.error

    @property
    def share(self) -> float:
        """How much of the difference is to be believed, from 0 to 1: the positive-part James-Stein
        factor 1 - error^2 / difference^2 (Efron and Morris 1973, "Stein's estimation rule").
        """
        return 1 - (self.error / self.difference) ** 2 if self.tells else 0.0


def points(metric: Metric, rows: Rows) -> float:
    """The plain mean over languages of the metric's points."""
    found = [float(metric.aggregate(metric.statistics(one).sum(axis=0))) for one in rows.values()]
    return math.fsum(found) / len(found)


def by_metric(metric: Metric, ours: Rows, theirs: Rows) -> Evidence:
    """In points. The standard error is that of the gate's score test: few rows, or rows that do not
    differ, are no proof.
    """
    keys = {language: [row["key"] for row in rows] for language, rows in ours.items()}
    found = pooled(metric, ours, theirs, keys, resamples=1)
    return Evidence(found.observed, found.error_at(found.observed))


def by_likelihood(labels: Sequence[str], ours: Rows, theirs: Rows) -> Evidence | None:
    """In nats: by how much the gold label's negative log-likelihood is lower.

    None where the task has no fixed labels with a score each.
    """
    each = []
    for language, rows in ours.items():
        mine, others = likelihoods(labels, rows), likelihoods(labels, theirs[language])
        if mine is None or others is None:
            return None
        gain = others - mine
        spread = float(gain.std(ddof=1)) if len(gain) > 1 else math.inf
        each.append((float(gain.mean()), spread / math.sqrt(len(gain))))
    return _together(each)


def likelihoods(
    labels: Sequence[str], rows: Sequence[ResultRow], temperature: float = 1.0
) -> NDArray[np.float64] | None:
    """-log p(gold) of each row (n,), where p is the softmax of the labels' scores divided by the
    temperature, less what they score without a prompt where that decides; None without scores.
    """
    place = {label: number for number, label in enumerate(labels)}
    if not place or any(len(row.get("scores", ())) != len(place) for row in rows):
        return None
    scores = np.array([row["scores"] for row in rows], dtype=np.float64)
    if "unconditional" in rows[0]:  # pmi: what is compared is the difference
        scores -= np.array([row["unconditional"] for row in rows], dtype=np.float64)
    scores /= temperature
    gold = scores[np.arange(len(rows)), [place[row["gold"]] for row in rows]]
    top = scores.max(axis=1)
    whole: NDArray[np.float64] = top + np.log(np.exp(scores - top[:, None]).sum(axis=1)) - gold
    return whole


def mean_likelihood(labels: Sequence[str], rows: Rows) -> float | None:
    """The plain mean over languages of the mean negative log-likelihood of the gold label."""
    each = [likelihoods(labels, one) for one in rows.values()]
    found = [float(one.mean()) for one in each if one is not None]
    return math.fsum(found) / len(found) if len(found) == len(each) else None


def _together(each: Sequence[tuple[float, float]]) -> Evidence:
    """The mean over languages, whose rows are independent of one another's."""
    k = len(each)
    variance = math.fsum(error**2 for _, error in each)
    return Evidence(math.fsum(value for value, _ in each) / k, math.sqrt(variance) / k)
