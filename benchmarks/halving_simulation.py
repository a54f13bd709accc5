"""What halving loses by not scoring every candidate on all dev rows: simulated candidate sets.

    python benchmarks/halving_simulation.py > benchmarks/results/halving_simulation.md

64 candidates answer the same rows of five languages. A row is answered rightly where a candidate's
quality exceeds the row's difficulty, which all candidates share, plus noise that similar candidates
share in part; what is left is the margin by which the gold label leads, times the candidate's own
confidence. `grid`: 8 recipes at 8 scales from .5 to 4, a parabola over log2 of the scale for each,
and a confidence that grows with the scale, so that the NLL likes smaller scales than the metric.
`alike`: independent qualities of .7 points standard deviation, `spread`: of 2 points.
What counts is the true accuracy, on endless rows, of the candidate that is left, less that of the
one that scoring all 64 on all rows chooses.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from koinize.metrics import metrics
from koinize.search.halving import part, ranked, rungs

Floats = NDArray[np.float64]
LANGUAGES, CANDIDATES = 5, 64
DIFFICULTY, OWN = 0.8, 0.3  # share of the noise that is a row's; of the rest, a candidate's alone
ACCURACY, NORMAL = metrics.get("accuracy"), NormalDist()
MEDIAN = NORMAL.inv_cdf(0.73)
POINT = 1 / (100 * NORMAL.pdf(MEDIAN))  # of quality, at 73 % of the rows
LABELS = ("0", "1")


@dataclass(frozen=True)
class Set:
    """Quality and confidence of each candidate (64,), and how unlike two of them are (64, 64)."""

    quality: Floats
    confidence: Floats
    unlike: Floats


def grid(random: np.random.Generator) -> Set:
    """8 recipes at 8 scales."""
    recipe, scale = np.repeat(np.arange(8), 8), np.tile(np.linspace(-1.0, 2.0, 8), 8)
    optimum = random.normal(0.5, 0.5) + random.normal(size=8) * 0.2
    quality = MEDIAN - 0.08 * (scale - optimum[recipe]) ** 2
    quality += random.normal(size=8)[recipe] * 0.03 + random.normal(size=CANDIDATES) * 0.01
    unlike = ((scale[:, None] - scale) / 1.5) ** 2 + 0.6 * (recipe[:, None] != recipe)
    return Set(quality, 2 * 2 ** (0.7 * scale), unlike)


def apart(points: float) -> Callable[[np.random.Generator], Set]:
    """Independent qualities of this standard deviation."""

    def make(random: np.random.Generator) -> Set:
        place = random.uniform(size=(CANDIDATES, 3))
        unlike = ((place[:, None] - place) ** 2).sum(-1) / 0.16
        quality = MEDIAN + random.normal(size=CANDIDATES) * points * POINT
        return Set(quality, 2 * np.exp(0.3 * random.normal(size=CANDIDATES)), unlike)

    return make


KINDS: Mapping[str, Callable[[np.random.Generator], Set]] = {
    "grid": grid,
    "alike": apart(0.7),
    "spread": apart(2.0),
}


@dataclass(frozen=True)
class Found:
    """Points lost against scoring everything, mean and standard error; the cost in scorings on all
    rows; by how much scoring everything misses the best itself; and the share of rows that the best
    candidate and the ninth best answer differently.
    """

    loss: float
    error: float
    cost: float
    regret: float
    differ: float


def simulated(
    kind: Callable[[np.random.Generator], Set], *, rows: int, sets: int, with_labels: bool
) -> Found:
    """So many sets of a kind, with so many dev rows of all languages together."""
    losses, costs, regrets, differ = [], [], [], []
    for seed in range(sets):
        random = np.random.default_rng(seed)
        one = kind(random)
        margins = _margins(one, rows, random)
        right = margins > 0
        true = 100 * np.array([NORMAL.cdf(value) for value in one.quality])
        chosen, cost = _halved(right, margins * one.confidence, with_labels)
        everything = int(np.argmax(right.mean(axis=0)))
        order = np.argsort(-true)
        losses.append(true[everything] - true[chosen])
        regrets.append(true.max() - true[everything])
        costs.append(cost)
        differ.append((right[:, order[0]] != right[:, order[8]]).mean())
    error = float(np.std(losses) / math.sqrt(sets))
    means = [float(np.mean(each)) for each in (losses, costs, regrets, differ)]
    return Found(means[0], error, *means[1:])


def _margins(one: Set, rows: int, random: np.random.Generator) -> Floats:
    """By how much the gold label leads (rows, 64)."""
    alike = (1 - OWN) * np.exp(-one.unlike / 2) + OWN * np.eye(CANDIDATES)
    mixed = np.linalg.cholesky(alike + 1e-6 * np.eye(CANDIDATES))
    difficulty = random.normal(size=(rows, 1))
    noise = random.normal(size=(rows, CANDIDATES)) @ mixed.T
    return one.quality - math.sqrt(DIFFICULTY) * difficulty - math.sqrt(1 - DIFFICULTY) * noise


def _halved(right: NDArray[np.bool_], scores: Floats, with_labels: bool) -> tuple[int, float]:
    """Who is left, and the cost in scorings on all rows."""
    each = len(right) // LANGUAGES
    alive, done, asked = [str(one) for one in range(CANDIDATES)], [0] * LANGUAGES, 0
    for rung in rungs(CANDIDATES):
        upto = [part(each, rung.share, place, LANGUAGES) for place in range(LANGUAGES)]
        asked += len(alive) * (sum(upto) - sum(done))
        done = upto
        candidates = {
            name: {
                str(language): [
                    _row(right[row, int(name)], scores[row, int(name)], row)
                    for row in range(language * each, language * each + last)
                ]
                for language, last in enumerate(upto)
                if last
            }
            for name in alive
        }
        labels = LABELS if with_labels else ()
        standings = ranked(ACCURACY, labels, candidates, rung.share)
        alive = [one.candidate for one in standings[: rung.keep]]
    return int(alive[0]), asked / len(right)


def _row(right: bool, score: float, number: int) -> dict[str, object]:
    prediction = str(int(right))
    return {"key": str(number), "gold": "1", "prediction": prediction, "scores": [0.0, score]}


def main() -> None:
    """The table."""
    sets = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print("# Halving among 64 candidates: simulated\n")
    print(f"{sets} sets a line; points lost against scoring all 64 on all dev rows, mean (standard")
    print("error); costs in scorings of one candidate on all dev rows, where scoring all is 64.\n")
    print("| candidates | dev rows | differ | lost, with labels | lost, without | cost "
          "| all 64 miss the best by |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name, kind in KINDS.items():
        for rows in (300, 1000):
            labels, none = (
                simulated(kind, rows=rows, sets=sets, with_labels=one) for one in (True, False)
            )
            print(
                f"| {name} | {rows} | {labels.differ:.0%} | {labels.loss:.2f} ({labels.error:.2f}) "
                f"| {none.loss:.2f} ({none.error:.2f}) | {labels.cost:.2f} | {labels.regret:.2f} |"
            )


if __name__ == "__main__":
    main()
