"""What a run wrote, resampled: rows within languages, training seeds outermost.

All systems of a task are scored on the same test rows, whatever the seed of their training, so a
resample draws the rows of a language once for all of them (paired), and the seeds with replacement.
Index 0 of every array is the sample itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from journal import Line, read_all
from numpy.typing import NDArray
from scoring import nll, result_rows

from koinize.digest import digest
from koinize.metrics import Metric, interval, metrics

Floats = NDArray[np.float64]
RESAMPLES = 10_000


@dataclass(frozen=True)
class System:
    """One adapter that was scored on test."""

    task: str
    seed: int
    group: str
    name: str
    candidate: str


@dataclass(frozen=True)
class Pair:
    """Points of the task's metric and NLL of the right answer, each (1 + resamples,)."""

    points: Floats
    nll: Floats

    def __sub__(self, other: Pair) -> Pair:
        return Pair(self.points - other.points, self.nll - other.nll)


Cells = Mapping[str, Pair]
"""Language -> what was resampled."""


class Results:
    """The lines of a run, by what they are about."""

    def __init__(self, folder: Path, resamples: int = RESAMPLES) -> None:
        self.resamples = resamples
        self.rows: dict[str, dict[str, Any]] = {}
        self.answers: dict[System, dict[str, Any]] = {}
        self.tokens: dict[tuple[str, str], int] = {}
        self.choices: dict[tuple[str, int, str, str], Line] = {}
        self.trainings: dict[tuple[str, int, str, str], Line] = {}
        for line in read_all(folder):
            self._take(line)
        self.cells = lru_cache(maxsize=500)(self._cells)
        self.counts = lru_cache(maxsize=None)(self._counts)

    def _take(self, line: Line) -> None:
        if line["what"] == "rows":
            if line["split"] == "test":
                self.rows[line["task"]] = line
            return
        about = tuple(line.get(key) for key in ("task", "seed", "group", "name"))
        if line["what"] == "score":
            if line["split"] == "test":
                self.answers[System(*about, line["candidate"])] = line["answers"]
            key = line["task"], line["split"]
            self.tokens[key] = max(self.tokens.get(key, 0), line["tokens"])
        elif line["what"] == "choice":
            self.choices[about] = line
        elif line["what"] == "train":
            self.trainings[about] = line

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that were scored on test, in the order of their names."""
        return tuple(sorted({one.task for one in self.answers}))

    def languages(self, task: str) -> tuple[str, ...]:
        """The languages of a task."""
        return tuple(sorted(self.rows[task]["rows"]))

    def metric(self, task: str) -> Metric:
        """The task's metric."""
        line = self.rows[task]
        return metrics.get(line["metric"]).over(line["labels"])

    def names(self, task: str, group: str) -> tuple[str, ...]:
        """The arms of a group that any seed has, in alphabetical order."""
        found = {one.name for one in self.answers if (one.task, one.group) == (task, group)}
        return tuple(sorted(found))

    def paid(self, arm: tuple[str, int, str, str]) -> tuple[int, int] | None:
        """Tokens of all trainings behind a set-up's arm, and of their critical path.

        Its own trainings have its name in front; they say what they went on from. None where a
        line is missing.
        """
        *about, name = arm
        group = {one[3]: line for one, line in self.trainings.items() if [*one[:3]] == about}
        paths: dict[str, int] = {}

        def path(one: str) -> int:
            if one not in paths:
                before = max(map(path, group[one]["start"]), default=0)
                paths[one] = group[one]["tokens"] + before
            return paths[one]

        own = [one for one in group if one.startswith(f"{name.replace('/', '-')}-")]
        try:
            longest = max(map(path, own), default=0)
        except KeyError:
            return None
        return (sum(group[one]["tokens"] for one in paths), longest) if own else None

    def label(self, about: tuple[str, int, str, str], which: str) -> str | None:
        """The candidate that is meant: a label, or how it was chosen ("by_nll", "by_metric")."""
        if which in ("by_nll", "by_metric"):
            choice = self.choices.get(about)
            return choice and choice.get(which)
        return which

    def _counts(self, task: str, language: str) -> Floats:
        """How often each resample draws each row: (1 + resamples, rows)."""
        n = len(self.rows[task]["rows"][language]["key"])
        generator = np.random.default_rng(int(digest([task, language])[:12], 16))
        drawn = generator.multinomial(n, np.full(n, 1 / n), size=self.resamples)
        return np.vstack([np.ones((1, n)), drawn])

    def _cells(self, system: System) -> Cells | None:
        """Every language of a system; None where it was not scored."""
        answers = self.answers.get(system)
        if answers is None:
            return None
        metric, gold, found = self.metric(system.task), self.rows[system.task]["rows"], {}
        for language, columns in answers.items():
            counts = self.counts(system.task, language)
            losses = np.array(nll(columns, gold[language]))
            statistics = metric.statistics(result_rows(columns, gold[language], metric.truth))
            points = metric.aggregate(counts @ statistics)
            found[language] = Pair(points, counts @ losses / len(losses))
        return found


Seeds = Mapping[int, Cells]
"""Seed -> language -> a difference or a value."""


def mean_cells(cells: Sequence[Cells]) -> Cells:
    """The mean of several systems, language by language."""
    return {
        language: Pair(
            np.mean([one[language].points for one in cells], axis=0),
            np.mean([one[language].nll for one in cells], axis=0),
        )
        for language in cells[0]
    }


def minus(ours: Cells, theirs: Cells) -> Cells:
    """Ours less theirs, language by language."""
    return {language: ours[language] - theirs[language] for language in ours}


def over_seeds(values: Mapping[int, Floats]) -> Floats:
    """The mean over seeds, each resample with as many seeds drawn as there are."""
    stack = np.stack([values[seed] for seed in sorted(values)])
    seeds, draws = stack.shape
    picked = np.random.default_rng(0).integers(seeds, size=(seeds, draws))
    picked[:, 0] = np.arange(seeds)
    return stack[picked, np.arange(draws)].mean(axis=0)


def over_languages(seeds: Seeds, what: str, languages: Sequence[str] = ()) -> Floats:
    """The mean over languages (all, or these) and seeds of `points` or `nll`."""
    return over_seeds(
        {
            seed: np.mean([getattr(cells[one], what) for one in (languages or cells)], axis=0)
            for seed, cells in seeds.items()
        }
    )


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 1) -> str:
        """Such as `-0.4 [-1.9, +1.1]`."""
        return f"{self.value:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


def interval_of(values: Floats) -> Interval:
    """The sample's value and its percentile interval."""
    low, high = interval(values[1:])
    return Interval(float(values[0]), float(low), float(high))


def by_scenario(names: Sequence[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Arm names `scenario/what/way` as (scenario, way) -> what -> name."""
    found: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for name in names:
        parts = name.split("/")
        if len(parts) == 3:
            found[parts[0], parts[2]][parts[1]] = name
    return dict(found)
