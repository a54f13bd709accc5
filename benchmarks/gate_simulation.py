"""Error and power of the gate, by simulation with its own code (compare_pairs, level_of).

    OMP_NUM_THREADS=1 python benchmarks/gate_simulation.py [times [table ...]]

The truth is known here: rows are drawn from a population in which a language loses exactly the
margin, or nothing. Six tables: single releases at the margin, the mean over languages at it, power
at the number of rows that `rows_needed` states, sequences of attempts on the same test rows, long
streams of releases under three rules, and drift with and without an anchor. They are named margin,
mean, power, sequences, streams and drift; `times` scales them all (by default 1,000 releases).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from koinize.gate import (
    POWER,
    Verdict,
    compare_mean_pairs,
    compare_pairs,
    level_of,
    rows_needed,
)
from koinize.metrics import Metric, metrics

Floats = NDArray[np.float64]
Drawing = Callable[[np.random.Generator, int, float], tuple[Floats, Floats]]

LANGUAGES = 5
RESAMPLES = 2_000  # the gate takes 10,000: the tail does not depend on them, the time does
DISCORDANT = 0.15
GAIN = 3.0  # points that the other languages win where one loses the margin
LABELS = ("negative", "neutral", "positive")
LABEL_SHARES = np.array([0.5, 0.3, 0.2])
RIGHT, REDRAWN = 0.75, 0.3
MEANS = np.arange(0.40, 0.601, 0.05)  # ROUGE-like scores of the reference
STEPS = np.arange(-0.30, 0.301, 0.05)  # what changes in those rows that change
CHANGED = 0.6
STREAM_ROWS = 3_000


@dataclass(frozen=True)
class Drawn(Metric):
    """A metric of which the statistics are drawn instead of computed from rows."""

    inner: Metric
    reads = "options"
    name = "drawn"

    def row_statistics(self, row: Any) -> Sequence[float]:  # noqa: ANN401
        """The row is its statistics."""
        return row

    def statistics(self, rows: Any) -> Floats:  # noqa: ANN401
        """The rows are their statistics."""
        return rows

    def aggregate(self, sums: Floats) -> Floats:
        """That of the metric behind it."""
        return self.inner.aggregate(sums)


@dataclass(frozen=True)
class Kind:
    """A metric, its margin, and rows whose true difference is known: `draw(generator, n, d)`."""

    name: str
    metric: Drawn
    margin: float
    draw: Drawing

    def verdict(self, ours: Floats, theirs: Floats, level: float, seed: int) -> Verdict:
        """The gate's, on drawn statistics."""
        return compare_pairs(
            ours, theirs, self.metric, self.margin, level=level, resamples=RESAMPLES, seed=seed
        )


def accuracy(generator: np.random.Generator, n: int, points: float) -> tuple[Floats, Floats]:
    """Rows of which 15 % are right in one system only."""
    lost, won = DISCORDANT / 2 - points / 200, DISCORDANT / 2 + points / 200
    return _hits(*generator.multinomial(n, [lost, won, 1 - lost - won]))


def sparse(generator: np.random.Generator, n: int, points: float) -> tuple[Floats, Floats]:
    """Rows that are never won: the loss is all that differs."""
    lost = max(-points, 0.0) / 100
    return _hits(*generator.multinomial(n, [lost, 0, 1 - lost]))


def _hits(lost: int, won: int, both: int) -> tuple[Floats, Floats]:
    ours = np.repeat([0.0, 1.0, 1.0], [lost, won, both])
    theirs = np.repeat([1.0, 0.0, 1.0], [lost, won, both])
    return _with_ones(ours), _with_ones(theirs)


def _with_ones(scores: Floats) -> Floats:
    return np.column_stack([scores, np.ones(len(scores))])


MACRO = metrics.get("macro-f1").over(LABELS)
CELLS = np.array(
    [
        [MACRO.row_statistics({"gold": gold, "prediction": said}) for said in LABELS]
        for gold in LABELS
    ]
)


def macro_f1(generator: np.random.Generator, n: int, points: float) -> tuple[Floats, Floats]:
    """Three labels of unequal size; 30 % of the reference's answers are drawn anew, more or less
    often right, so that about 15 % differ.
    """
    right = _redrawn_right(points)
    gold = generator.choice(3, n, p=LABEL_SHARES)
    theirs = _answers(generator, gold, RIGHT)
    anew = _answers(generator, gold, right)
    ours = np.where(generator.random(n) < REDRAWN, anew, theirs)
    return CELLS[gold, ours], CELLS[gold, theirs]


def _answers(generator: np.random.Generator, gold: NDArray[Any], right: float) -> NDArray[Any]:
    other = (gold + generator.integers(1, 3, len(gold))) % 3
    return np.where(generator.random(len(gold)) < right, gold, other)


@cache
def _redrawn_right(points: float) -> float:
    """How often a redrawn answer is right, for this true difference of macro-F1."""

    def population(right: float) -> float:
        shares = np.full((3, 3), (1 - right) / 2)
        np.fill_diagonal(shares, right)
        weights = LABEL_SHARES[:, None] * shares
        return float(MACRO.aggregate((weights[..., None] * CELLS).sum(axis=(0, 1))))

    def gap(right: float) -> float:
        mixed = (1 - REDRAWN) * RIGHT + REDRAWN * right
        return population(mixed) - population(RIGHT) - points

    return float(brentq(gap, 0.4, 1.0))


def rouge(generator: np.random.Generator, n: int, points: float) -> tuple[Floats, Floats]:
    """Scores from 0 to 1 of which 60 % change, by up to 0.3."""
    theirs = generator.choice(MEANS, n)
    change = generator.choice(STEPS, n, p=_step_shares(points))
    ours = theirs + np.where(generator.random(n) < CHANGED, change, 0.0)
    return _with_ones(np.round(ours, 2)), _with_ones(np.round(theirs, 2))


@cache
def _step_shares(points: float) -> Floats:
    def shares(tilt: float) -> Floats:
        weights = np.exp(tilt * STEPS)
        return weights / weights.sum()

    wanted = points / 100 / CHANGED
    return shares(float(brentq(lambda tilt: shares(tilt) @ STEPS - wanted, -50, 50)))


HITS = Drawn(metrics.get("accuracy"))
KINDS = (
    Kind("accuracy, 15 % differ", HITS, 2.0, accuracy),
    Kind("accuracy, losses only", HITS, 2.0, sparse),
    Kind("macro-F1", Drawn(MACRO), 2.0, macro_f1),
    Kind("ROUGE-like", Drawn(metrics.get("rouge-l")), 1.0, rouge),
)


def releases_at_the_margin(kind: Kind, rows: int, times: int) -> float:
    """The share of first attempts that pass although one of five languages loses the margin and
    the others gain, the case in which an intersection-union test errs most.
    """
    generator = np.random.default_rng(1)
    truths = [-kind.margin, *[GAIN] * (LANGUAGES - 1)]
    passed = sum(_all_pass(kind, generator, rows, truths, seed) for seed in range(times))
    return passed / times


def means_at_the_margin(kind: Kind, rows: int, times: int, *, translated: bool) -> float:
    """The share of verdicts on the mean that say "not worse" although it loses the margin: every
    language loses it, on rows of its own or on translations of the same ones.
    """
    generator = np.random.default_rng(3)
    passed = 0
    for seed in range(times):
        pairs = [kind.draw(generator, rows, -kind.margin) for _ in range(LANGUAGES)]
        drawn = [pairs[0]] * LANGUAGES if translated else pairs
        first = [0 if translated else n * rows for n in range(LANGUAGES)]
        keys = {str(n): range(first[n], first[n] + rows) for n in range(LANGUAGES)}
        ours, theirs = ({str(n): pair[side] for n, pair in enumerate(drawn)} for side in (0, 1))
        found = compare_mean_pairs(
            ours, theirs, keys, kind.metric, kind.margin, resamples=RESAMPLES, seed=seed
        )
        passed += found.passes
    return passed / times


def power_at_stated_rows(kind: Kind, times: int) -> tuple[int, float]:
    """Rows per language by `rows_needed`, and the share of equal candidates that pass there."""
    generator = np.random.default_rng(2)
    pilot = kind.verdict(*kind.draw(generator, 100_000, 0.0), level_of(1), 0)
    together = POWER ** (1 / LANGUAGES)
    rows = rows_needed(0.0, pilot.error, kind.margin, pilot.n, level_of(1), together)
    if rows == pilot.n + 1:  # fewer would do: `rows_needed` speaks of more than there are
        rows = _fewer(pilot, kind.margin, together)
    truths = [0.0] * LANGUAGES
    passed = sum(_all_pass(kind, generator, rows, truths, seed) for seed in range(times))
    return rows, passed / times


def _fewer(pilot: Verdict, margin: float, power: float) -> int:
    """The same formula from a pilot of 100 rows with the same spread."""
    error = pilot.error * math.sqrt(pilot.n / 100)
    return rows_needed(0.0, error, margin, 100, level_of(1), power)


def _all_pass(
    kind: Kind, generator: np.random.Generator, rows: int, truths: Sequence[float], seed: int
) -> bool:
    """Stops at the first language that refuses, which is what decides."""
    pairs = (kind.draw(generator, rows, points) for points in truths)
    return all(kind.verdict(*pair, level_of(1), seed).passes for pair in pairs)


# Sequences: accuracy, where the p-value depends on the numbers of rows lost and won alone.


@cache
def p_value(lost: int, won: int, rows: int) -> float:
    """That of "the candidate loses the margin or more"."""
    return KINDS[0].verdict(*_hits(lost, won, rows - lost - won), level_of(1), 0).p_value


class Rule:
    """Levels for attempts in a row: `level()`, then `told(passed)`."""

    name = "2.5 % every time"

    def level(self) -> float:
        """The level of the next attempt."""
        return level_of(1)

    def told(self, passed: bool) -> None:
        """How it ended."""


class Budget(Rule):
    """The gate's: 5 % for each release in use."""

    name = "budget of each release"

    def __init__(self) -> None:
        self.attempt = 1

    def level(self) -> float:
        """By the number of attempts against what is in use."""
        return level_of(self.attempt)

    def told(self, passed: bool) -> None:
        """A release begins anew."""
        self.attempt = 1 if passed else self.attempt + 1


class LordPlusPlus(Rule):
    """LORD++ at 5 % (Ramdas, Yang, Wainwright and Jordan 2017), half of it at the start."""

    name = "LORD++"

    def __init__(self) -> None:
        ranks = np.arange(1, 20_001)
        falling = np.log(np.maximum(ranks, 2)) / (ranks * np.exp(np.sqrt(np.log(ranks))))
        self.shares = falling / falling.sum()
        self.time, self.rejections = 1, list[int]()

    def level(self) -> float:
        """Every rejection so far pays for the time since."""
        total = 0.025 * self.shares[self.time - 1]
        for rank, when in enumerate(self.rejections):
            total += (0.05 if rank else 0.025) * self.shares[self.time - when - 1]
        return float(total)

    def told(self, passed: bool) -> None:
        """A rejection earns."""
        if passed:
            self.rejections.append(self.time)
        self.time += 1


RULES = (Rule, Budget, LordPlusPlus)


class Systems:
    """Systems of known accuracy on one set of test rows: right where a shared difficulty plus a
    part of one's own lies low enough. Two of equal accuracy differ in 16 % of rows.
    """

    SHARED = 0.811  # of the variance; makes 16 % of rows differ at an accuracy of 75 %

    def __init__(self, generator: np.random.Generator, rows: int) -> None:
        self.generator, self.rows = generator, rows
        self.difficulty = generator.standard_normal(rows) * math.sqrt(self.SHARED)

    def answers(self, share: float) -> NDArray[np.bool_]:
        """Which rows a new system of this accuracy gets right."""
        own = self.generator.standard_normal(self.rows) * math.sqrt(1 - self.SHARED)
        return self.difficulty + own < NormalDist().inv_cdf(share)

    def p_value(self, ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
        """That of "ours loses the margin or more"."""
        lost, won = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
        return p_value(lost, won, self.rows)


def sequences(rule: type[Rule], times: int, attempts: int) -> float:
    """The share of sequences in which any of so many candidates at the margin replaces the one
    release, all on the same test rows.
    """
    failed = 0
    for seed in range(times):
        systems = Systems(np.random.default_rng([3, seed]), STREAM_ROWS)
        incumbent, levels = systems.answers(0.75), rule()
        for _ in range(attempts):
            passed = systems.p_value(systems.answers(0.73), incumbent) <= levels.level()
            failed += passed
            if passed:
                break
            levels.told(passed)
    return failed / times


@dataclass
class Stream:
    """What a stream of candidates led to."""

    releases: int = 0
    false: int = 0
    good: int = 0


def stream(rule: type[Rule], times: int, bad: float) -> Stream:
    """Ten candidates in each of `times` / 10 channels on the same test rows; a share of `bad` loses
    exactly the margin against what is in use, the others nothing.
    """
    found = Stream()
    for seed in range(times // 10):
        generator = np.random.default_rng([4, seed])
        systems, levels = Systems(generator, STREAM_ROWS), rule()
        share, incumbent = 0.75, systems.answers(0.75)
        for _ in range(10):
            loses = generator.random() < bad
            found.good += not loses
            new = share - 0.02 if loses else share
            ours = systems.answers(new)
            passed = systems.p_value(ours, incumbent) <= levels.level()
            levels.told(passed)
            if passed:
                found.releases += 1
                found.false += loses
                share, incumbent = new, ours
    return found


def drift(times: int, *, anchored: bool) -> tuple[float, float]:
    """Forty candidates in a row, each a quarter of the margin below what is in use: how many are
    released, and the points lost by then. Means over sequences.
    """
    releases, lost = 0, 0.0
    for seed in range(times):
        systems, levels = Systems(np.random.default_rng([5, seed]), STREAM_ROWS), Budget()
        share, incumbent = 0.75, systems.answers(0.75)
        first = incumbent
        for _ in range(40):
            ours = systems.answers(share - 0.005)
            passed = systems.p_value(ours, incumbent) <= levels.level()
            if anchored and passed:
                passed = not worse(systems, ours, first)
            levels.told(passed)
            if passed:
                releases += 1
                share, incumbent = share - 0.005, ours
        lost += 100 * (0.75 - share)
    return releases / times, lost / times


def worse(systems: Systems, ours: NDArray[np.bool_], first: NDArray[np.bool_]) -> bool:
    """A loss against the first release that is certain, and not shown to be within the margin."""
    lost, won = int((first & ~ours).sum()), int((ours & ~first).sum())
    return p_value(lost, won, systems.rows) > level_of(1) and _p_better(won, lost, systems.rows)


@cache
def _p_better(won: int, lost: int, rows: int) -> bool:
    back = KINDS[0].verdict(*_hits(won, lost, rows - lost - won), level_of(1), 0)
    return back.p_better < level_of(1)


def margin_table(times: int) -> Iterator[str]:
    """How often the gate errs once."""
    yield f"Single releases at the margin, {times:,} each: one of five languages loses exactly the"
    yield "margin, four gain 3 points; level 2.5 %.\n"
    yield from _table(
        ("data", "rows per language", "released"),
        (
            (kind.name, f"{rows:,}", _percent(releases_at_the_margin(kind, rows, times)))
            for kind in KINDS
            for rows in (500, 2_000)
        ),
    )


def mean_table(times: int) -> Iterator[str]:
    """How often the verdict on the mean errs."""
    yield f"The mean of five languages at the margin, {times:,} each: all of them lose exactly the"
    yield "margin; level 2.5 %.\n"
    yield from _table(
        ("data", "rows per language", "not worse, own rows", "not worse, translations"),
        (
            (
                kind.name,
                f"{rows:,}",
                *(
                    _percent(means_at_the_margin(kind, rows, times, translated=translated))
                    for translated in (False, True)
                ),
            )
            for kind in KINDS
            for rows in (42, 200)
        ),
    )


def power_table(times: int) -> Iterator[str]:
    """How often it lets equals pass."""
    yield f"Power: five languages, truth equal, rows by `rows_needed`, {times // 5:,} each.\n"
    stated = ((kind.name, *power_at_stated_rows(kind, times // 5)) for kind in KINDS)
    yield from _table(
        ("data", "rows per language", "released"),
        ((name, f"{rows:,}", _percent(share)) for name, rows, share in stated),
    )


def sequence_table(times: int) -> Iterator[str]:
    """What trying again and again leads to."""
    yield f"Attempts in a row against one release, all at the margin, on the same {STREAM_ROWS:,}"
    yield f"rows: the share of {times:,} sequences with any false release.\n"
    yield from _table(
        ("rule", "1 attempt", "5 attempts", "20 attempts"),
        (
            (rule.name, *(_percent(sequences(rule, times, length)) for length in (1, 5, 20)))
            for rule in RULES
        ),
    )


def stream_table(times: int) -> Iterator[str]:
    """What a life of releases leads to."""
    yield "Streams of ten candidates on the same rows; a part loses the margin, the rest 0.\n"
    yield from _table(
        ("rule", "at the margin", "released", "of them false", "good ones released"),
        (_stream_row(rule, times, bad) for bad in (1.0, 0.5, 0.1) for rule in RULES),
    )


def drift_table(times: int) -> Iterator[str]:
    """What many tolerated losses lead to."""
    yield "Drift: forty candidates in a row, each a quarter of the margin below what is in use.\n"
    yield from _table(
        ("", "released", "points lost at the end"),
        (
            (name, *(f"{one:.1f}" for one in drift(times // 10, anchored=anchored)))
            for name, anchored in (("without an anchor", False), ("with the anchor", True))
        ),
    )


TABLES = {
    "margin": margin_table,
    "mean": mean_table,
    "power": power_table,
    "sequences": sequence_table,
    "streams": stream_table,
    "drift": drift_table,
}


def _stream_row(rule: type[Rule], times: int, bad: float) -> tuple[str, ...]:
    found = stream(rule, times, bad)
    good = _percent((found.releases - found.false) / found.good) if found.good else "-"
    false = f"{found.false} ({_percent(found.false / max(1, found.releases))})"
    return rule.name, f"{100 * bad:.0f} %", str(found.releases), false, good


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    """Print the tables, and how long they took."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    began = time.process_time()
    for name in sys.argv[2:] or TABLES:
        for line in TABLES[name](times):
            print(line, flush=True)
        print()
    print(f"{time.process_time() - began:.0f} s of processor time.")


if __name__ == "__main__":
    main()
