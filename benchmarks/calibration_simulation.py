"""The expected calibration error of few rows: how far off, how often its interval holds the truth.

    python benchmarks/calibration_simulation.py [SAMPLES]

Answers among two labels, with probabilities drawn from three distributions, that are right less
often than these say by so many points: the true error. Each sample is scored by
`koinize.report.calibration`. One line for each number of rows and true error, with the range over
the distributions; the same into benchmarks/results/calibration_simulation.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import log
from pathlib import Path

import numpy as np

from koinize.report.calibration import calibration

LABELS = ("a", "b")
SHAPES = ((5.0, 2.0), (2.0, 2.0), (8.0, 1.0))
"""Of the Beta distributions between even chances and certainty."""
ROWS = (42, 210)
GAPS = (0.0, 0.05, 0.1, 0.2)
RESULT = Path(__file__).parent / "results" / "calibration_simulation.md"
Figures = tuple[float, float, float, float]


def rows(generator: np.random.Generator, n: int, shape: tuple[float, float], gap: float) -> list:
    """Answers of which the share that is right lies `gap` below their probability."""
    probabilities = 0.5 + 0.5 * generator.beta(*shape, size=n)
    hits = generator.random(n) < probabilities - gap
    return [
        {
            "prediction": "a",
            "gold": "a" if hit else "b",
            "scores": [log(one), log(max(1 - one, 1e-12))],
        }
        for one, hit in zip(probabilities.tolist(), hits.tolist(), strict=True)
    ]


def simulated(n: int, shape: tuple[float, float], gap: float, samples: int) -> Figures:
    """Means of the error as counted and corrected, in points; the percentage of samples whose
    interval holds the true error, and of those that are called miscalibrated.
    """
    found = []
    for seed in range(samples):
        one = calibration(LABELS, rows(np.random.default_rng(seed), n, shape, gap))
        if one is None:
            raise SystemExit("a row without a score for every label")
        holds = one["low"] <= 100 * gap <= one["high"]
        found.append((one["error"], one["corrected"], 100.0 * holds, 100.0 * (one["low"] > 0)))
    error, corrected, held, called = np.mean(found, axis=0).tolist()
    return error, corrected, held, called


def line(n: int, gap: float, samples: int) -> str:
    """One row of the table."""
    every = list(zip(*(simulated(n, shape, gap, samples) for shape in SHAPES), strict=True))
    formats: list[Callable[[float], str]] = [
        *["{:.1f}".format] * 2,
        *["{:.0f} %".format] * 2,
    ]
    cells = [
        f"{said(min(some))} to {said(max(some))}" for said, some in zip(formats, every, strict=True)
    ]
    return f"| {n} | {100 * gap:.0f} | {' | '.join(cells)} |"


def main() -> None:
    """Simulate and print."""
    samples = int(sys.argv[1]) if sys.argv[1:] else 200
    text = [
        "# The expected calibration error on few rows",
        "",
        f"`python benchmarks/calibration_simulation.py {samples}` · {samples} samples of each of "
        "three distributions of probabilities; the range over the three, in points.",
        "",
        "| rows | true error | as counted | corrected | interval holds it | called miscalibrated |",
        "|---|---|---|---|---|---|",
    ]
    for n in ROWS:
        for gap in GAPS:
            text.append(line(n, gap, samples))
            print(text[-1], file=sys.stderr)
    RESULT.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
