"""Scores and verdicts of a report, once more, from result rows alone: no line of koinize is used.

What is drawn is as docs/metrics.md has it: rows that say the same are one category, categories are
in the order of their statistics, and numpy's default generator draws multinomial counts of them.
All else (formulas, guard, p-values, rows needed) is written down here a second time.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, inf, isfinite, sqrt
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
from scipy.special import ndtr
from scipy.stats import t as student

from tests.oracle.texts import MEANS, shared_characters

SEED, TAIL = 12_345, 0.025
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """A metric over some labels, by name; `texts` stand for them in one language or another."""

    name: str
    labels: tuple[str, ...]
    texts: frozenset[str]

    def vectors(self, rows: Sequence[Row]) -> np.ndarray:
        """What of each row is summed: hits and rows; or hits, predictions and gold by label."""
        if self.name == "chrf":
            return np.array([shared_characters(one) for one in rows], dtype=float)
        if self.name == "label-language":
            return np.array([[not foreign(one, self.texts), 1.0] for one in rows])
        if share := SHARES.get(self.name):
            return np.array([[share(one), 1.0] for one in rows])
        found = np.zeros((len(rows), 3, len(self.labels)))
        answer = "answer" if self.name in FREE else "prediction"
        for place, one in enumerate(rows):
            gold = self.labels.index(one["gold"])
            found[place, 2, gold] = 1
            found[place, 0, gold] = one["gold"] == one[answer]
            if one[answer]:  # what is no label's text predicts none
                found[place, 1, self.labels.index(one[answer])] = 1
        return found.reshape(len(rows), -1)

    def points(self, sums: np.ndarray) -> np.ndarray:
        """From sums (..., k) to points (...)."""
        if self.name == "chrf":
            return character_f(sums)
        if self.name in {*SHARES, "label-language"}:
            return 100 * sums[..., 0] / sums[..., 1]
        hits, said, gold = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
        under = {"precision": said, "recall": gold}.get(self.name, (said + gold) / 2)
        each = np.where(under > 0, hits / np.where(under > 0, under, 1), 0)
        asked = gold > 0
        return 100 * (each * asked).sum(axis=-1) / asked.sum(axis=-1)


def normalized(row: Row) -> float:
    """Whether the option with the highest log-probability per token is right; of rows by older
    versions, which do not name their options, nothing is known.
    """
    each = [one / length for one, length in zip(row["scores"], row["lengths"], strict=True)]
    return float(row["labels"][each.index(max(each))] == row["gold"])


JUDGED = ("bert-score", "not-hallucinated", "entity-precision")
"""Those of what a model said of each row, which the rows of its steps have."""

SHARES: Mapping[str, Callable[[Row], float]] = {
    "accuracy": lambda row: float(row["gold"] == row["prediction"]),
    "accuracy-normalized": normalized,
    "free-accuracy": lambda row: float(row["gold"] == row["answer"]),
    "parsed": lambda row: float(row["answer"] != ""),
    **MEANS,
    **{name: lambda row, name=name: float(row[name]["score"]) for name in JUDGED},
}
"""The metrics that are means over rows."""

FREE = ("free-accuracy", "free-macro-f1", "parsed", "label-language")
"""Those of what was written, which nobody does on dev."""


def character_f(sums: np.ndarray) -> np.ndarray:
    """F2 of the mean precision and the mean recall over the orders that both sides have."""
    said, gold, both = np.moveaxis(sums.reshape(*sums.shape[:-1], 6, 3), -1, 0)
    used = (said > 0) & (gold > 0)
    orders = np.maximum(used.sum(axis=-1), 1)
    precision, recall = (
        np.where(used, both / np.where(one > 0, one, 1), 0).sum(axis=-1) / orders
        for one in (said, gold)
    )
    under = 4 * precision + recall
    return 100 * 5 * precision * recall / np.where(under > 0, under, 1)


METRICS = {*SHARES, *FREE, "chrf", "precision", "recall", "macro-f1"}
"""All that are written down here."""


def measure_of(name: str, task: Mapping[str, Any], asked: Mapping[str, Any]) -> Measure:
    """A metric of a task, which is so in the report and was asked for so in koinize.yaml."""
    assert name in METRICS, f"nobody has written {name} down here"
    by_language = (asked.get("verbalizers") or {}).values()
    texts = [text for some in by_language if not isinstance(some, str) for text in some.values()]
    return Measure(name, tuple(sorted(task["labels"])), frozenset(map(stripped, texts)))


def foreign(row: Row, texts: frozenset[str]) -> bool:
    """Whether what was written is no answer here and stands for a label in another language."""
    return row["answer"] == "" and stripped(row["written"]) in texts


def stripped(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def drawn(vectors: np.ndarray, counts: Sequence[int], n: int, times: int, seed: int) -> np.ndarray:
    """Sums of n vectors drawn with replacement, `times` over; a vector was met so many times."""
    shares = np.asarray(counts) / np.sum(counts)
    return np.random.default_rng(seed).multinomial(n, shares, times) @ vectors


def ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return float(low), float(high)


def scored(measure: Measure, rows: Sequence[Row]) -> dict[str, Any]:
    """A score with its interval."""
    vectors, counts = np.unique(measure.vectors(rows), axis=0, return_counts=True)
    low, high = ends(measure.points(drawn(vectors, counts, len(rows), 2_000, SEED)))
    value = float(measure.points(measure.vectors(rows).sum(axis=0)))
    return {"value": value, "low": low, "high": high, "n": len(rows)}


def mean_of(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over languages; the distances to the ends add in squares."""
    value, k = fmean(one["value"] for one in scores), len(scores)
    below = sqrt(sum((one["value"] - one["low"]) ** 2 for one in scores)) / k
    above = sqrt(sum((one["high"] - one["value"]) ** 2 for one in scores)) / k
    n = sum(one["n"] for one in scores)
    return {"value": value, "low": value - below, "high": value + above, "n": n}


@dataclass(frozen=True)
class Sample:
    """One language: the difference, its resamples, what each row of the guarded population adds to
    it, with which share, and what each row that was there adds.
    """

    n: int
    observed: float
    resampled: np.ndarray
    adds: np.ndarray
    shares: np.ndarray
    rows_add: np.ndarray
    by_seed: tuple[float, ...] = (0.0,)

    def alike(self) -> Sample:
        return sample_of_equals(self.n)


@cache
def sample_of_equals(n: int, seed: int = SEED, times: int = 10_000) -> Sample:
    """n rows that both answer alike, guarded by a loss and a win of 100 points."""
    points, counts = np.array([-100.0, 0.0, 100.0]), np.array([1, n, 1])
    sums = drawn(points[:, None], counts, n, times, seed)[:, 0]
    return Sample(n, 0.0, sums / n, points, counts / (n + 2), np.zeros(n))


Pair = tuple[Sequence[Row], Sequence[Row]]
"""The rows of both sides, with one seed of the trainings."""


def sample(measure: Measure, sides: Sequence[Pair], seed: int, times: int = 10_000) -> Sample:
    """Rows paired by key, and two more: a loss and a win of the largest size that was seen. A row
    is drawn with its answers of every seed, and the difference is the mean over seeds.
    """
    keys = sorted(one["key"] for one in sides[0][0])
    a, b = (
        np.hstack([measure.vectors(in_order(side[which], keys)) for side in sides])
        for which in (0, 1)
    )
    width, k = a.shape[1], len(sides)

    def each(sums: np.ndarray) -> np.ndarray:
        points = measure.points(sums.reshape(*sums.shape[:-1], 2, k, width // k))
        return points[..., 0, :] - points[..., 1, :]

    def gap(sums: np.ndarray) -> np.ndarray:
        return each(sums).mean(axis=-1)

    pairs = np.hstack([a, b])
    gaps, by_seed = gap(pairs), each(pairs.sum(axis=0))
    if not gaps.any():
        same, off = sample_of_equals(len(pairs), seed, times), float(by_seed.mean())
        return replace(same, observed=off, resampled=same.resampled + off, by_seed=tuple(by_seed))
    largest = np.abs(gaps) == np.abs(gaps).max()
    wins = [
        pair if one > 0 else np.concatenate([pair[width:], pair[:width]])
        for pair, one in zip(pairs[largest], gaps[largest], strict=True)
    ]
    win = np.mean(wins, axis=0)
    guarded = np.vstack([pairs, win, np.concatenate([win[width:], win[:width]])])
    vectors, place, counts = np.unique(guarded, axis=0, return_inverse=True, return_counts=True)
    shares = counts / len(guarded)
    centre, step = shares @ vectors, 1e-4
    adds = gap(centre) + (gap((1 - step) * centre + step * vectors) - gap(centre)) / step
    sums = gap(drawn(vectors, counts, len(pairs), times, seed))
    rows_add = adds[place.ravel()[: len(pairs)]]
    return Sample(len(pairs), float(by_seed.mean()), sums, adds, shares, rows_add, tuple(by_seed))


def in_order(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    by_key = {one["key"]: one for one in rows}
    return [by_key[key] for key in keys]


def weighted(one: Sample, tilt: float, scale: float) -> np.ndarray:
    exponents = tilt * one.adds / scale
    weights = one.shares * np.exp(exponents - exponents.max())
    return weights / weights.sum()


def tilts(samples: Sequence[Sample], scales: Sequence[float], target: float) -> list[np.ndarray]:
    """The weights under which the mean over samples is the target, by halving an interval."""
    low, high = -1e3, 1e3
    while True:
        middle = (low + high) / 2
        weights = [weighted(one, middle, at) for one, at in zip(samples, scales, strict=True)]
        mean = fmean(float(w @ one.adds) for w, one in zip(weights, samples, strict=True))
        if middle in (low, high):
            return weights
        low, high = (middle, high) if mean < target else (low, middle)


def spread_at(samples: Sequence[Sample], widening: float, difference: float) -> float:
    """Standard error of the mean of these samples, were its true value this difference."""
    if abs(difference) >= 100:
        reached = all(one.adds.min() < difference < one.adds.max() for one in samples)
        if len(samples) > 1 or not reached:
            return inf
    lowest, highest = (fmean(map(which, (s.adds for s in samples))) for which in (np.min, np.max))
    if not lowest < difference < highest:
        return spread_at([one.alike() for one in samples], widening, difference)
    largest = max(np.abs(one.adds / one.n).max() for one in samples)
    weights = tilts(samples, [largest * one.n for one in samples], difference)
    variance = sum(
        float(w @ (one.adds - w @ one.adds) ** 2) / one.n
        for w, one in zip(weights, samples, strict=True)
    )
    return widening * sqrt(variance) / len(samples)


def widened(samples: Sequence[Sample], keys: Sequence[Sequence[str]]) -> float:
    """By how much examples that several languages share make standard errors larger."""
    together, times, apart = defaultdict(float), defaultdict(int), 0.0
    for one, names in zip(samples, keys, strict=True):
        for name, adds in zip(names, (one.rows_add - one.rows_add.mean()) / one.n, strict=True):
            together[name] += adds
            times[name] += 1
            apart += adds**2
    if max(times.values()) == 1:
        return 1.0
    if not apart:
        return sqrt(max(times.values()))
    return sqrt(max(1.0, sum(one**2 for one in together.values()) / apart))


Sides = Mapping[str, Sequence[Row]]
"""Language -> rows."""


def of_seeds(by_seed: np.ndarray, times: int = 10_000) -> np.ndarray:
    """What seeds add to each resample: Student's t, its quantiles in a random order, in standard
    errors of the mean over seeds.
    """
    k = len(by_seed)
    if k == 1 or not by_seed.std():
        return np.zeros(times)
    quantiles = student.ppf((np.arange(times) + 0.5) / times, k - 1)
    order = np.random.default_rng([SEED, k - 1])
    return by_seed.std(ddof=1) / sqrt(k) * order.permutation(quantiles)


def judged(
    measure: Measure,
    sides: Mapping[str, Sequence[Pair]],
    margin: float,
    level: float = TAIL,
    planned: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """The verdict on the mean over these languages, of which each has a pair of sides for every
    seed; of one language, on that one. `planned` are level and power of the rows to decide.
    """
    samples = [sample(measure, sides[one], SEED + place) for place, one in enumerate(sorted(sides))]
    keys = [sorted(row["key"] for row in sides[one][0][0]) for one in sorted(sides)]
    wide = widened(samples, keys)
    observed = fmean(one.observed for one in samples)
    of_rows = observed + wide * (np.mean([one.resampled for one in samples], axis=0) - observed)
    by_seed = np.mean([one.by_seed for one in samples], axis=0)
    chance = of_seeds(by_seed)
    resampled = np.clip(of_rows + chance, -100, 100)
    n = sum(one.n for one in samples)

    def p_value(bound: float) -> float:
        below = int((resampled <= bound).sum())
        counted = (below + 1) / 10_001 if below else 0.0
        errors = (observed - bound + np.unique(chance)) / spread_at(samples, wide, bound)
        return max(counted, float(ndtr(-errors).mean()))

    low, high = ends(resampled)
    p, p_better, above = p_value(-margin), p_value(0.0), int((resampled >= 0).sum())
    at_margin, seen = spread_at(samples, wide, -margin), float(of_rows.std())
    error = max(seen, at_margin) if isfinite(at_margin) else seen
    error = sqrt(error**2 + np.var(by_seed, ddof=1) / len(by_seed)) if chance.any() else error
    said = "worse" if high < 0 else "inconclusive"
    said = "better" if p_better <= level else "not worse" if p <= level else said
    return {
        "verdict": said,
        "difference": observed,
        "low": low,
        "high": high,
        "n": n,
        "margin": margin,
        "p_value": p,
        "p_better": p_better,
        "p_worse": (above + 1) / 10_001 if above else 1 / 10_000,
        "rows_needed": needed(observed, error, margin, n, *(planned or (level, 0.8)))
        if said == "inconclusive" and len(by_seed) == 1
        else None,
        "level": level,
        "error": error,
        "by_seed": by_seed.tolist() if len(by_seed) > 1 else [],
    }


def needed(
    difference: float, error: float, margin: float, n: int, level: float, power: float
) -> int:
    """Rows that decide with this power: that a loss is within the margin, or, always at 2.5 %, that
    there is one; whichever takes fewer.
    """
    z, beyond = NormalDist().inv_cdf, NormalDist().inv_cdf(power)
    within = (z(1 - level) + beyond) / (difference + margin) if difference > -margin else inf
    without = (z(1 - TAIL) + beyond) / -difference if difference < 0 else inf
    return max(n + 1, ceil(1.1 * n * (min(within, without) * error) ** 2))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Every p-value times the number of those that are no smaller, never less than one before."""
    found, reached, left = {}, 0.0, len(p_values)
    for name in sorted(p_values, key=lambda one: (p_values[one], one)):
        reached = max(reached, min(1.0, left * p_values[name]))
        found[name], left = reached, left - 1
    return found


def all_languages(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict over all of them; a loss counts where it survives the search for one."""
    losses = holm({one: row["p_worse"] for one, row in rows.items()})
    gains = holm({one: row["p_better"] for one, row in rows.items()})
    looks = {one for one, row in rows.items() if row["verdict"] == "worse"}
    worse = sorted(one for one in looks if losses[one] <= TAIL)
    opened = {one for one, row in rows.items() if row["verdict"] == "inconclusive"}
    opened |= looks - {*worse}
    return {
        "verdict": "worse" if worse else "inconclusive" if opened else "not worse",
        "p_value": max(row["p_value"] for row in rows.values()),
        "worse": worse,
        "inconclusive": sorted(opened),
        "better": sorted(one for one, p in gains.items() if p < TAIL),
    }


@cache
def smallest_margin(n: int) -> float:
    """In tenths of a point: the first that n equal answers show."""
    return next(tenths for tenths in range(1, 1002) if equal_shows(n, tenths / 10)) / 10


@cache
def fewest_rows(margin: float) -> int:
    """The first number of equal answers that shows a margin, by trying from below."""
    low = 1
    while not equal_shows(low + 32, margin):
        low += 32
    return next(n for n in range(low, low + 33) if equal_shows(n, margin))


def equal_shows(n: int, margin: float) -> bool:
    one = sample_of_equals(n)
    below = int((one.resampled <= -margin).sum())
    distance = margin / spread_at([one], 1.0, -margin)
    return max((below + 1) / 10_001 if below else 0, NormalDist().cdf(-distance)) <= TAIL


def best_in(measure: Measure, candidates: Mapping[str, Sides]) -> dict[str, float]:
    """The share of 1,000 resamples of dev in which each has the highest mean; equals share."""
    names = list(candidates)
    total = np.zeros((1_000, len(names)))
    for place, language in enumerate(candidates[names[0]]):
        each = np.hstack([measure.vectors(candidates[name][language]) for name in names])
        vectors, counts = np.unique(each, axis=0, return_counts=True)
        sums = drawn(vectors, counts, len(each), 1_000, SEED + place)
        total += measure.points(sums.reshape(1_000, len(names), -1))
    winners = total > total.max(axis=1, keepdims=True) - 1e-9
    shares = (winners / winners.sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(names, shares.tolist(), strict=True))
