"""False "not worse" at the margin over several training seeds, by simulation with the gate's code.

    OMP_NUM_THREADS=1 python benchmarks/seed_simulation.py [SAMPLES]

The truth is known: over all seeds a candidate loses exactly the margin. Every training moves a
system up or down as a whole by a draw of its seed, every row is easy or hard for all of them, and
each answer has chance of its own. Three ways to judge k seeds on the same rows: by rows alone, by
rows and seeds drawn with replacement, and as `koinize.metrics.paired` does. A line for each number
of seeds and each spread; the same into benchmarks/results/seed_simulation.md.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koinize.metrics import MeanMetric, paired

Floats = NDArray[np.float64]
RESULT = Path(__file__).parent / "results" / "seed_simulation.md"
MARGIN, LEVEL, RESAMPLES, ROWS = 2.0, 0.025, 1_000, 300
RIGHT = 0.75  # the reference's accuracy
OF_THE_ANSWER = 0.6  # the standard deviation of an answer's own chance, where that of rows is 1
SEEDS = (2, 3, 5)
SPREADS = (0.0, 0.5, 1.0, 2.0, 5.0)
"""The standard deviation of the difference between seeds, in points, on endless rows."""


@dataclass(frozen=True)
class Drawn(MeanMetric):
    """Accuracy, of rows that are statistics already."""

    reads = "options"
    name = "drawn"

    def row_score(self, row: Any) -> float:  # noqa: ANN401
        """The row is its score."""
        return float(row)

    def statistics(self, rows: Any) -> Floats:  # noqa: ANN401
        """The score and 1, as of any mean."""
        return np.column_stack([rows, np.ones(len(rows))])


def answers(generator: np.random.Generator, rows: Floats, right: float, spread: float) -> Floats:
    """Whether each row is answered rightly (1 or 0) by one training of a system whose accuracy over
    all seeds and rows is `right`. `spread` is in points, of one system.
    """
    spread /= 100
    width = math.hypot(1.0, OF_THE_ANSWER)
    # A shift d of all answers moves the accuracy by d times the density at the threshold.
    density = NormalDist().pdf(NormalDist().inv_cdf(right)) / width
    moved = spread / density
    threshold = math.hypot(width, moved) * NormalDist().inv_cdf(right)
    own = generator.normal(0.0, OF_THE_ANSWER, len(rows)) + generator.normal(0.0, moved)
    return (rows + own < threshold).astype(float)


def p_values(seed: int, seeds: int, spread: float) -> tuple[float, float, float]:
    """Of H0 "the margin is lost": by rows alone, with seeds drawn again, and as the gate does."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=ROWS)
    one = spread / math.sqrt(2)  # both systems have seeds
    pairs: list[Any] = [
        (
            answers(generator, rows, RIGHT - MARGIN / 100, one),
            answers(generator, rows, RIGHT, one),
        )
        for _ in range(seeds)
    ]
    found = paired(Drawn(), *pairs[0], further=pairs[1:], resamples=RESAMPLES, seed=seed)
    again = generator.integers(seeds, size=(RESAMPLES, seeds))
    moved = found.by_seed[again].mean(axis=1) - found.observed
    alone = float((found.resampled <= -MARGIN).mean())
    drawn = float((found.resampled + moved <= -MARGIN).mean())
    return alone, drawn, found.p_value(-MARGIN)


def line(seeds: int, spread: float, samples: int) -> str:
    """A row of the table: how often each of the three is at most the level, in percent."""
    found = np.array([p_values(seed, seeds, spread) for seed in range(samples)])
    shares = 100 * (found <= LEVEL).mean(axis=0)
    return f"| {seeds} | {spread:g} | " + " | ".join(f"{one:.1f}" for one in shares) + " |"


def main(samples: int) -> None:
    """Print the table and keep it."""
    told = (
        "# False “not worse” over training seeds\n\n"
        f"`python benchmarks/seed_simulation.py {samples}`: {samples:,} comparisons a line on "
        f"{ROWS} rows, of which the candidate loses {MARGIN:g} points over all seeds. The share, "
        f"in percent, that is called not worse by a margin of {MARGIN:g}; {100 * LEVEL:g} is what "
        "the level allows.\n\n"
        "| seeds | spread, points | rows alone | seeds drawn again | koinize |\n"
        "|---|---|---|---|---|\n"
    )
    print(told, end="")
    lines = []
    for seeds in SEEDS:
        for spread in SPREADS:
            lines.append(line(seeds, spread, samples))
            print(lines[-1], flush=True)
    RESULT.write_text(told + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
