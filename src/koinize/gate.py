"""The gate: is a candidate at least as good as its reference, up to a margin fixed beforehand?

Parity is a claim that needs evidence of its own: "no significant difference" only says that there
were few rows. So the gate tests non-inferiority, H0: candidate - reference <= -margin, on pairs
of rows (a paired bootstrap), and says "inconclusive" when the rows do not decide.

Everything is read from one two-sided 95 % interval [low, high] of the difference:

    low > 0                      better         superior
    -margin < low <= 0           not worse      the loss, if any, is smaller than the margin
    low <= -margin and high < 0  worse          a loss for certain, and not shown to be tolerable
    low <= -margin and high >= 0 inconclusive   `rows_needed` says how many rows would decide

One-sided, each claim has an error of 2.5 %, the level that belongs to a 95 % interval (CONSORT for
non-inferiority trials, Piaggio et al. 2012); where few rows differ it stays under 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from koinize.errors import InputError
from koinize.metrics import LEVEL, SEED, Metric, ResultRow, interval, paired_differences

Outcome = Literal["better", "not worse", "worse", "inconclusive"]

RESAMPLES = 10_000
ERROR = (100 - LEVEL) / 200  # one-sided
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison on one set of rows. Differences, interval and margin are in points.

    `p_value` is that of H0: difference <= -margin, `p_better` that of H0: difference <= 0; both are
    one-sided. `rows_needed` is None unless the verdict is inconclusive.
    """

    verdict: Outcome
    difference: float
    low: float
    high: float
    margin: float
    n: int
    p_value: float
    p_better: float
    rows_needed: int | None
    signature: str

    @property
    def passes(self) -> bool:
        """Whether non-inferiority is shown."""
        return self.verdict in ("better", "not worse")

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; `Verdict(**plain)` is the way back."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JointVerdict:
    """The verdict over all languages, and the languages that stand in the way."""

    verdict: Literal["not worse", "worse", "inconclusive"]
    p_value: float
    worse: tuple[str, ...]
    inconclusive: tuple[str, ...]


def compare(
    candidate: Sequence[ResultRow],
    reference: Sequence[ResultRow],
    metric: Metric,
    margin: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Verdict:
    """Judge a candidate's result rows against a reference's, row by row with the same key.

    `margin` is the loss in points that is still tolerable, above 0. Raises InputError for a margin
    of 0 or less, for a repeated key, for keys that are not the same on both sides, and for one key
    with two truths.
    """
    if not margin > 0:
        raise InputError(
            f"margin {margin:g} cannot be tested",
            expected="a number of points above 0",
            remedy="no number of rows shows a loss of exactly nothing",
        )
    ours, theirs = _paired(candidate, reference, metric)
    observed, resampled = paired_differences(metric, ours, theirs, resamples=resamples, seed=seed)
    low, high = interval(resampled)
    verdict = outcome(low, high, margin)
    decided = verdict != "inconclusive"
    error = float(resampled.std())
    return Verdict(
        verdict=verdict,
        difference=observed,
        low=low,
        high=high,
        margin=margin,
        n=len(ours),
        p_value=_share_below(resampled, -margin),
        p_better=_share_below(resampled, 0.0),
        rows_needed=None if decided else rows_needed(observed, error, margin, len(ours)),
        signature=metric.signature(
            paired="key",
            guard="win+loss",
            margin=f"{margin:g}",
            boot=resamples,
            seed=seed,
            level=LEVEL,
        ),
    )


def outcome(low: float, high: float, margin: float) -> Outcome:
    """The verdict that an interval of the difference gives; the four cases are exhaustive."""
    if low > 0:
        return "better"
    if low > -margin:
        return "not worse"
    return "worse" if high < 0 else "inconclusive"


def rows_needed(difference: float, standard_error: float, margin: float, n: int) -> int:
    """Rows that would decide with a probability of 80 %, were the observed difference the true one.

    The normal approximation: either -margin or 0 is excluded, whichever lies farther away, and to
    exclude a value at distance d takes n x ((z.975 + z.80) x standard error / d)^2 rows. An upper
    bound where few rows differ, because their two added pairs count as if they were observed.
    """
    distance = max(difference + margin, -difference)
    quantiles = NormalDist().inv_cdf(1 - ERROR) + NormalDist().inv_cdf(POWER)
    return max(n + 1, math.ceil(n * (quantiles * standard_error / distance) ** 2))


def in_every_language(verdicts: Mapping[str, Verdict]) -> JointVerdict:
    """ "Not worse in every language" as an intersection-union test (Berger 1982).

    The claim holds when it holds in each language at the full level, and its p-value is the largest
    one; no correction is needed. One language that is worse makes the whole worse.
    """
    if not verdicts:
        raise InputError("there is no language to judge", expected="at least one verdict")
    worse = _with_verdict(verdicts, "worse")
    inconclusive = _with_verdict(verdicts, "inconclusive")
    return JointVerdict(
        verdict="worse" if worse else "inconclusive" if inconclusive else "not worse",
        p_value=max(verdict.p_value for verdict in verdicts.values()),
        worse=worse,
        inconclusive=inconclusive,
    )


def better_somewhere(verdicts: Mapping[str, Verdict]) -> tuple[str, ...]:
    """The languages in which "better" survives the search over all languages (Holm 1979).

    The probability that any of them is named wrongly is at most 2.5 %.
    """
    adjusted = holm({language: verdict.p_better for language, verdict in verdicts.items()})
    return tuple(sorted(language for language, p in adjusted.items() if p < ERROR))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p-values: the i-th smallest of m times m - i + 1, made monotone."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def _with_verdict(verdicts: Mapping[str, Verdict], wanted: Outcome) -> tuple[str, ...]:
    return tuple(sorted(name for name, found in verdicts.items() if found.verdict == wanted))


def _share_below(values: NDArray[np.float64], bound: float) -> float:
    """Bootstrap p-value, with the observed sample counted in so that it is never 0."""
    return float(((values <= bound).sum() + 1) / (len(values) + 1))


def _paired(
    candidate: Sequence[ResultRow], reference: Sequence[ResultRow], metric: Metric
) -> tuple[list[ResultRow], list[ResultRow]]:
    """Both sides in the order of their keys."""
    ours, theirs = _by_key(candidate, "candidate"), _by_key(reference, "reference")
    alone = ours.keys() ^ theirs.keys()
    if alone:
        raise InputError(
            f"{len(alone)} rows have no partner, the first with key '{min(alone)}'",
            expected=f"the same keys on both sides, not {len(ours)} and {len(theirs)} rows",
            remedy="evaluate both on the same split",
        )
    keys = sorted(ours)
    for key in keys:
        if ours[key].get(metric.truth) != theirs[key].get(metric.truth):
            raise InputError(
                f"row '{key}' has two different values of '{metric.truth}'",
                expected="the same example on both sides",
                remedy="evaluate both on the same version of the data",
            )
    return [ours[key] for key in keys], [theirs[key] for key in keys]


def _by_key(rows: Sequence[ResultRow], side: str) -> dict[str, ResultRow]:
    found: dict[str, ResultRow] = {}
    for row in rows:
        key = row["key"]
        if key in found:
            raise InputError(
                f"the {side} has two rows with key '{key}'",
                expected="one row per key",
                remedy="compare one language and one split at a time",
            )
        found[key] = row
    return found
