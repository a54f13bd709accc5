"""Choosing among many candidates on growing shares of the dev rows: the better half goes on.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): every rung costs the same, since
half of the candidates answer twice the rows. All candidates answer the same rows, and none twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from koinize.metrics import Metric
from koinize.search.evidence import Rows, likelihoods, points

BUDGET = 4.0  # scorings on all dev rows that the whole choice may cost
ROUNDS = 4  # of proposals
TEMPERATURES = tuple(2.0 ** (step / 2) for step in range(-6, 7))
FEW = 30  # rows of a language, below which a metric of its own is noise
LIKELIHOOD = 2.0  # weight of the NLL beside the metric where no row is answered yet
SUREST = 3.0  # nats: no more is lost by one row at which a candidate is sure and wrong


@dataclass(frozen=True)
class Rung:
    """The share of the dev rows that is answered by its end, and how many candidates go on."""

    share: float
    keep: int


@dataclass(frozen=True)
class Standing:
    """A candidate on a rung: its points, and its NLL of the gold label (bounded), if any."""

    candidate: str
    points: float
    nll: float | None


def rungs(candidates: int) -> tuple[Rung, ...]:
    """From the first to the last, after which one candidate is left; none where scoring all of them
    on all rows is within the budget.
    """
    if candidates <= BUDGET:
        return ()
    alive = [candidates]
    while alive[-1] > 1:
        alive.append(math.ceil(alive[-1] / 2))
    # With shares of f / alive a rung costs f less what those alive have answered already.
    costs = 1 + sum(1 - now / before for before, now in pairwise(alive[:-1]))
    return tuple(Rung(min(1.0, BUDGET / costs / now), after) for now, after in pairwise(alive))


def rounds(trials: int) -> tuple[int, ...]:
    """How many of so many trials are proposed at once: a quarter each, the first ones at random."""
    each = math.ceil(trials / ROUNDS)
    return tuple(min(each, trials - done) for done in range(0, trials, each))


def part(rows: int, share: float, place: int, languages: int) -> int:
    """How many of a language's rows are answered at a share; languages round at different points,
    so that all together, of as many rows each, answer the share of all rows, rounded down.
    """
    return math.floor(share * rows + place / languages)


def ranked(
    metric: Metric,
    labels: Sequence[str],
    candidates: Mapping[str, Rows],
    share: float,
    *,
    tempered: bool = False,
) -> list[Standing]:
    """The candidates, the best first; the first listed of equals.

    By the metric, and by the NLL of the gold label where the task has one, each in standard
    deviations over the candidates. The NLL tells more of few rows and nothing of the metric at
    last, so its weight falls from 2 to 0 as the share of the rows grows. `tempered`: it is each
    candidate's at a temperature of its own, the one that suits these rows best, with the weight 1:
    without what a larger scale does to confidence, it says of every share what the metric does.
    """
    names = list(candidates)
    by_metric = [_points(metric, candidates[name]) for name in names]
    temperatures = TEMPERATURES if tempered else (1.0,)
    losses = [_loss(labels, candidates[name], temperatures) for name in names]
    known = [one for one in losses if one is not None]
    value = _standardised(by_metric)
    if len(known) == len(names):
        value = value - (1.0 if tempered else LIKELIHOOD * (1 - share)) * _standardised(known)
    order = np.argsort(-value, kind="stable")
    return [Standing(names[i], by_metric[i], losses[i]) for i in order]


def _points(metric: Metric, rows: Rows) -> float:
    """The mean over languages; of few rows the metric of all languages' rows together."""
    if min(map(len, rows.values()), default=FEW) >= FEW:
        return points(metric, rows) if rows else 0.0
    together = [metric.statistics(one) for one in rows.values()]
    return float(metric.aggregate(np.vstack(together).sum(axis=0)))


def _loss(labels: Sequence[str], rows: Rows, temperatures: Sequence[float]) -> float | None:
    """The lowest of those at these temperatures; None without rows, or without labels."""
    together = [row for one in rows.values() for row in one]
    if not together:
        return None
    each = [likelihoods(labels, together, one) for one in temperatures]
    known = [float(np.minimum(one, SUREST).mean()) for one in each if one is not None]
    return min(known) if known else None


def _standardised(values: Sequence[float]) -> NDArray[np.float64]:
    found = np.array(values, dtype=np.float64)
    spread = found.std()
    return (found - found.mean()) / spread if spread > 0 else np.zeros(len(found))
