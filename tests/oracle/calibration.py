"""Whether answers are right as often as their probabilities say: docs/report.md, once more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.oracle.verdicts import SEED, Row, drawn, ends


def calibration(labels: Sequence[str], rows: Sequence[Row]) -> dict[str, Any] | None:
    """Of these answers; None where one has no score for every label."""
    if any(len(one.get("scores") or ()) != len(labels) for one in rows):
        return None
    answers = sorted((probability(labels, one), one["gold"] == one["prediction"]) for one in rows)
    n = len(answers)
    tenths = [min(9, int(10 * p)) for p, _ in answers]
    gaps = np.zeros((n, 10))
    for place, (tenth, (p, hit)) in enumerate(zip(tenths, answers, strict=True)):
        gaps[place, tenth] = p - hit
    vectors, counts = np.unique(gaps, axis=0, return_counts=True)
    error = distance(gaps.sum(axis=0), n)
    resampled = distance(drawn(vectors, counts, n, 2_000, SEED), n)
    low, high = ends(resampled)
    generator, hits = np.random.default_rng(SEED), np.zeros((1_000, 10))
    for draw in hits:  # in the order of the probabilities
        for tenth, (p, _), number in zip(tenths, answers, generator.random(n), strict=True):
            draw[tenth] += number < p
    sums = np.array([sum(p for p, _ in some) for some in by_tenth(tenths, answers)])
    calibrated = distance(sums - hits, n)
    above = float(np.quantile(calibrated, 0.975))
    return {
        "n": n,
        "confidence": 100 * math.fsum(p for p, _ in answers) / n,
        "accuracy": 100 * sum(hit for _, hit in answers) / n,
        "error": float(error),
        "corrected": max(0.0, float(2 * error - resampled.mean())),
        "low": max(0.0, float(2 * error - high)) if error > above + 1e-9 else 0.0,
        "high": max(0.0, float(2 * error - low)),
        "calibrated": float(calibrated.mean()),
        "calibrated_high": above,
        "bins": [
            one_bin(some, hits[:, tenth])
            for tenth, some in enumerate(by_tenth(tenths, answers))
            if some
        ],
    }


Answer = tuple[float, bool]


def by_tenth(tenths: Sequence[int], answers: Sequence[Answer]) -> list[list[Answer]]:
    return [[a for t, a in zip(tenths, answers, strict=True) if t == one] for one in range(10)]


def one_bin(answers: Sequence[Answer], hits: np.ndarray) -> Mapping[str, Any]:
    n = len(answers)
    low, high = ends(100 * hits / n)
    return {
        "n": n,
        "confidence": 100 * math.fsum(p for p, _ in answers) / n,
        "accuracy": 100 * sum(hit for _, hit in answers) / n,
        "calibrated_low": low,
        "calibrated_high": high,
    }


def probability(labels: Sequence[str], row: Row) -> float:
    """Of the answer among the labels."""
    shares = [math.exp(one - max(row["scores"])) for one in row["scores"]]
    return shares[labels.index(row["prediction"])] / math.fsum(shares)


def distance(gaps: np.ndarray, n: int) -> Any:
    """Of probabilities and hits, summed by tenth, in points."""
    return 100 * np.abs(gaps).sum(axis=-1) / n
