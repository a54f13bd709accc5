"""Calibration: are answers right as often as the model's probabilities for them say?

The probability of an answer is that of its label among the task's labels, the softmax of their
summed log-probabilities. The expected calibration error is the mean distance between probability
and hit rate over ten equal bins (Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using
Bayesian Binning"; Guo et al. 2017, "On Calibration of Modern Neural Networks").

Few rows make it too large: in every bin chance pulls the two apart, and a distance has no sign. So
beside it stands what it is less the bias that the bootstrap finds, with the basic bootstrap's
interval, which is reflected and so corrected likewise (Davison and Hinkley 1997, "Bootstrap Methods
and their Application", 2.1 and 5.2); and what a calibrated model would show with the same
probabilities on as many rows, by draws of hits from them (Bröcker and Smith 2007, "Increasing the
Reliability of Reliability Diagrams"). Only an error above 97.5 % of those draws is shown; for any
other the interval begins at 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from koinize.metrics import RESAMPLES, SEED, interval, resample
from koinize.report.figures import CalibrationBin

BINS = 10
DRAWS = 1_000
ROUNDING = 1e-9  # points: of few rows a draw may be just what was seen, summed in another order

Floats = NDArray[np.float64]


class Found(TypedDict):
    """The part of `figures.Calibration` that rows say."""

    n: int
    confidence: float
    accuracy: float
    error: float
    corrected: float
    low: float
    high: float
    calibrated: float
    calibrated_high: float
    bins: Sequence[CalibrationBin]


def calibration(labels: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Found | None:
    """The calibration of these answers; None where a row lacks a score for every label."""
    if not rows or any(len(row.get("scores") or ()) != len(labels) for row in rows):
        return None
    answers = sorted(
        (_probability(labels, row), float(row["prediction"] == row["gold"])) for row in rows
    )
    confidence, hits = (np.array(column) for column in zip(*answers, strict=True))
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    members = np.eye(BINS)[places]
    n = len(rows)
    error = _errors((confidence - hits) @ members, n)
    resampled = _errors(_resampled((confidence - hits)[:, None] * members), n)
    low, high = interval(resampled)
    drawn = _drawn(confidence, members)
    if_calibrated = _errors(confidence @ members - drawn, n)
    calibrated_high = float(np.percentile(if_calibrated, 97.5))
    return {
        "n": n,
        "confidence": 100 * float(confidence.mean()),
        "accuracy": 100 * float(hits.mean()),
        "error": float(error),
        "corrected": max(0.0, float(2 * error - resampled.mean())),
        "low": max(0.0, float(2 * error - high))
        if is_shown(float(error), calibrated_high)
        else 0.0,
        "high": max(0.0, float(2 * error - low)),
        "calibrated": float(if_calibrated.mean()),
        "calibrated_high": calibrated_high,
        "bins": _bins(confidence, hits, members, drawn),
    }


def is_shown(error: float, calibrated_high: float) -> bool:
    """Whether an error is above what a calibrated model shows, by more than rounding."""
    return error > calibrated_high + ROUNDING


def _probability(labels: Sequence[str], row: Mapping[str, Any]) -> float:
    """Of the answer, among the labels."""
    scores = np.array(row["scores"], dtype=np.float64)
    shares = np.exp(scores - scores.max())
    return float(shares[labels.index(row["prediction"])] / shares.sum())


def _errors(gaps: Floats, n: int) -> Floats:
    """Points from probabilities less hits, summed in each bin: shape (..., BINS) -> (...)."""
    errors: Floats = 100 * np.abs(gaps).sum(axis=-1) / n
    return errors


def _resampled(gaps: Floats) -> Floats:
    """The rows' gaps summed by bin over draws of as many rows: (RESAMPLES, BINS)."""
    distinct, counts = np.unique(gaps, axis=0, return_counts=True)
    return resample(distinct, counts, len(gaps), RESAMPLES, SEED)


def _drawn(confidence: Floats, members: Floats) -> Floats:
    """Hits by bin if answers were right as often as their probabilities say: (DRAWS, BINS)."""
    generator = np.random.default_rng(SEED)
    each = ((generator.random(len(confidence)) < confidence) @ members for _ in range(DRAWS))
    return np.stack(list(each))


def _bins(confidence: Floats, hits: Floats, members: Floats, drawn: Floats) -> list[CalibrationBin]:
    """Those that hold an answer, from the lowest probability on."""
    found: list[CalibrationBin] = []
    for place, count in enumerate(members.sum(axis=0).astype(int).tolist()):
        if count:
            low, high = interval(100 * drawn[:, place] / count)
            found.append(
                {
                    "n": count,
                    "confidence": 100 * float(confidence @ members[:, place]) / count,
                    "accuracy": 100 * float(hits @ members[:, place]) / count,
                    "calibrated_low": low,
                    "calibrated_high": high,
                }
            )
    return found
