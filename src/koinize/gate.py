"""The gate: is a candidate at least as good as its reference, up to a margin fixed beforehand?

Parity is a claim that needs evidence of its own: "no significant difference" only says that there
were few rows. So the gate tests non-inferiority, H0: candidate - reference <= -margin, on pairs
of rows, and says "inconclusive" when the rows do not decide. In this order:

    better        the p-value of H0: difference <= 0 is at most the level
    not worse     that of H0: difference <= -margin is: the loss, if any, is within the margin
    worse         the 95 % interval of the difference lies below 0: a loss, not shown tolerable
    inconclusive  `rows_needed` says how many rows would decide

A first attempt has a level of 2.5 %, that of a 95 % interval (CONSORT for non-inferiority trials,
Piaggio et al. 2012); whoever tries again with another candidate has a lower one (`level_of`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Literal

from koinize.errors import InputError
from koinize.metrics import (
    LEVEL,
    SEED,
    Compared,
    Metric,
    Pair,
    ResultRow,
    equal,
    interval,
    matched,
    paired,
    pooled,
)

Outcome = Literal["better", "not worse", "worse", "inconclusive"]

RESAMPLES = 10_000
ERROR = (100 - LEVEL) / 200  # one-sided
POWER = 0.8
BUDGET = 0.05
ALLOWANCE = 1.10  # more rows, for what the larger one of two p-values costs in power


def level_of(attempt: int) -> float:
    """The level of the attempt-th test (1, 2, ...) against one reference: 2.5 %, 0.83 %, 0.42 %...

    5 % / (attempt x (attempt + 1)): the levels of all attempts, however many, sum to 5 %, and that
    bounds the chance that any of them errs, however much they depend on one another. The shape of
    LORD (Javanmard and Montanari 2018, Annals of Statistics 46), begun anew by every release.
    """
    return BUDGET / (attempt * (attempt + 1))


def budget_after(attempts: int) -> float:
    """What is left of the 5 % after so many attempts: all levels that are still to come."""
    return BUDGET / (attempts + 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison on one set of rows. Differences, interval and margin are in points.

    `low` and `high` are the 95 % interval. `p_value` is that of H0: difference <= -margin,
    `p_better` that of H0: difference <= 0; both are one-sided and are held against `level`.
    `p_worse` is that of H0: difference >= 0; None in what an older koinize wrote.
    `error` is the standard error that `rows_needed` reckons with; the latter is None unless the
    verdict is inconclusive, and over several seeds, whose share of the error no row makes smaller.
    `by_seed` has the difference of each seed of the trainings, of which `difference` is the mean;
    empty where there is one.
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
    level: float = ERROR
    error: float = 0.0
    p_worse: float | None = None
    by_seed: tuple[float, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether non-inferiority is shown."""
        return self.verdict in ("better", "not worse")

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; `Verdict(**plain)` is the way back."""
        plain = asdict(self)
        if not self.by_seed:
            del plain["by_seed"]
        return plain


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
    further: Sequence[Pair] = (),
    level: float = ERROR,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Verdict:
    """Judge a candidate's result rows against a reference's, row by row with the same key.

    `margin` is the loss in points that is still tolerable, above 0; `level` is what a p-value may
    be at most. `further` has the rows of both with further seeds of the trainings: then the verdict
    is on the mean over seeds, which are the outer level of its interval. Raises InputError for a
    margin of 0 or less, for a repeated key, for keys that are not the same on both sides, and for
    one key with two truths.
    """
    (ours, theirs), *others = matched([(candidate, reference), *further], metric)
    return compare_pairs(
        ours, theirs, metric, margin, further=others, level=level, resamples=resamples, seed=seed
    )


def compare_pairs(
    ours: Sequence[ResultRow],
    theirs: Sequence[ResultRow],
    metric: Metric,
    margin: float,
    *,
    further: Sequence[Pair] = (),
    level: float = ERROR,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Verdict:
    """`compare` for rows that are paired already: row i of both is the same example."""
    _require_margin(margin)
    found = paired(metric, ours, theirs, further=further, resamples=resamples, seed=seed)
    how = {"paired": "key", **_outer(len(further))}
    signature = _signature(metric, margin, resamples, seed, **how)
    return _judged(found, margin, level, signature)


def compare_mean(
    candidate: Mapping[str, Sequence[ResultRow]],
    reference: Mapping[str, Sequence[ResultRow]],
    metric: Metric,
    margin: float,
    *,
    further: Mapping[str, Sequence[Pair]] | None = None,
    level: float = ERROR,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Verdict:
    """Judge the mean over languages, from language -> rows of both sides; `n` are all rows.

    `further` has the rows of both with further seeds, by language, as in `compare`. A statement
    about the mean: one language may lose what others win. Raises as `compare` does.
    """
    others = further or {}
    sides = {
        one: matched([(rows, reference[one]), *others.get(one, ())], metric)
        for one, rows in candidate.items()
    }
    ours = {language: some[0][0] for language, some in sides.items()}
    theirs = {language: some[0][1] for language, some in sides.items()}
    keys = {language: [row["key"] for row in rows] for language, rows in ours.items()}
    return compare_mean_pairs(
        ours,
        theirs,
        keys,
        metric,
        margin,
        further={language: some[1:] for language, some in sides.items()},
        level=level,
        resamples=resamples,
        seed=seed,
    )


def compare_mean_pairs(
    ours: Mapping[str, Sequence[ResultRow]],
    theirs: Mapping[str, Sequence[ResultRow]],
    keys: Mapping[str, Sequence[Hashable]],
    metric: Metric,
    margin: float,
    *,
    further: Mapping[str, Sequence[Pair]] | None = None,
    level: float = ERROR,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Verdict:
    """`compare_mean` for rows that are paired already: row i has the i-th key of its language."""
    _require_margin(margin)
    found = pooled(metric, ours, theirs, keys, further=further, resamples=resamples, seed=seed)
    how = {"paired": "key", "mean": f"{len(keys)} languages", **_outer(len(found.by_seed) - 1)}
    signature = _signature(metric, margin, resamples, seed, **how)
    return _judged(found, margin, level, signature)


def _require_margin(margin: float) -> None:
    if not margin > 0:
        raise InputError(
            f"margin {margin:g} cannot be tested",
            expected="a number of points above 0",
            remedy="no number of rows shows a loss of exactly nothing",
        )


def _outer(further: int) -> dict[str, str]:
    """What a signature says of several seeds."""
    return {"seeds": f"{further + 1}", "outer": "student-t"} if further else {}


def _signature(metric: Metric, margin: float, resamples: int, seed: int, **how: str) -> str:
    return metric.signature(
        **how,
        guard="win+loss",
        tail="tilted",
        margin=f"{margin:g}",
        boot=resamples,
        seed=seed,
        level=LEVEL,
    )


def _judged(found: Compared, margin: float, level: float, signature: str) -> Verdict:
    low, high = interval(found.drawn)
    several = len(found.by_seed) > 1
    p_value, p_better = found.p_value(-margin), found.p_value(0.0)
    verdict = outcome(p_value, p_better, high, level)
    error = standard_error(found, margin)
    return Verdict(
        verdict=verdict,
        difference=found.observed,
        low=low,
        high=high,
        margin=margin,
        n=found.n,
        p_value=p_value,
        p_better=p_better,
        rows_needed=None
        if verdict != "inconclusive" or several
        else rows_needed(found.observed, error, margin, found.n, level),
        signature=signature,
        level=level,
        error=error,
        p_worse=found.p_worse,
        by_seed=tuple(found.by_seed.tolist()) if several else (),
    )


def outcome(p_value: float, p_better: float, high: float, level: float = ERROR) -> Outcome:
    """The verdict that p-values and the upper end of the interval give; the cases are exhaustive.

    To say "worse" puts nothing into use, so it is always said at 2.5 %.
    """
    if p_better <= level:
        return "better"
    if p_value <= level:
        return "not worse"
    return "worse" if high < 0 else "inconclusive"


def standard_error(found: Compared, margin: float) -> float:
    """The larger of the two that decide: that of the sample, and that at a loss of the margin; and
    what seeds add to it.
    """
    at_margin = found.error_at(-margin)
    spread = float(found.resampled.std())
    rows = max(spread, at_margin) if math.isfinite(at_margin) else spread
    return math.hypot(rows, found.seed_error) if found.seed_error else rows


def rows_needed(
    difference: float,
    standard_error: float,
    margin: float,
    n: int,
    level: float = ERROR,
    power: float = POWER,
) -> int:
    """Rows that would decide with this probability, were the observed difference the true one.

    The normal approximation: to exclude a value at distance d takes n x ((z(level) + z(power)) x
    standard error / d)^2 rows, and 10 % more for what the approximation leaves out. Either -margin
    is excluded at `level`, or 0 from below at 2.5 % ("worse"), whichever takes fewer. An upper
    bound where few rows differ, because their two added pairs count as if they were observed.
    """
    needed = [
        (NormalDist().inv_cdf(1 - error) + NormalDist().inv_cdf(power)) / distance
        for error, distance in ((level, difference + margin), (ERROR, -difference))
        if distance > 0
    ]
    return max(n + 1, math.ceil(ALLOWANCE * n * (min(needed) * standard_error) ** 2))


def smallest_margin(n: int, level: float = ERROR) -> float:
    """The smallest margin that n rows show if all answers are equal, in tenths of a point. 100 and
    more: none. A candidate that is clearly better shows a smaller one, too.
    """
    found = equal(n, resamples=RESAMPLES)
    low, high = 0, 1001
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found.p_value(-middle / 10) <= level else (middle, high)
    return high / 10


def fewest_rows(margin: float, level: float = ERROR) -> int:
    """The fewest rows that can show this margin (points), were all answers equal."""
    low, high = 0, 1
    while equal(high, resamples=RESAMPLES).p_value(-margin) > level:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        shown = equal(middle, resamples=RESAMPLES).p_value(-margin) <= level
        low, high = (low, middle) if shown else (middle, high)
    return high


def in_every_language(verdicts: Mapping[str, Verdict]) -> JointVerdict:
    """ "Not worse in every language" as an intersection-union test (Berger 1982).

    The claim holds when it holds in each language at the full level, and its p-value is the largest
    one; no correction is needed. One language that is worse makes the whole worse, if that survives
    the search over all languages (Holm 1979): of ten languages that lost nothing, one in five times
    some language looks worse at 2.5 %. Until then it counts as undecided.
    """
    if not verdicts:
        raise InputError("there is no language to judge", expected="at least one verdict")
    adjusted = holm({language: _p_worse(verdict) for language, verdict in verdicts.items()})
    looks_worse = _with_verdict(verdicts, "worse")
    worse = tuple(language for language in looks_worse if adjusted[language] <= ERROR)
    undecided = {*looks_worse, *_with_verdict(verdicts, "inconclusive")} - {*worse}
    inconclusive = tuple(sorted(undecided))
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


def _p_worse(found: Verdict) -> float:
    if found.p_worse is not None:
        return found.p_worse
    return 0.0 if found.verdict == "worse" else 1.0


def _with_verdict(verdicts: Mapping[str, Verdict], wanted: Outcome) -> tuple[str, ...]:
    return tuple(sorted(name for name, found in verdicts.items() if found.verdict == wanted))
