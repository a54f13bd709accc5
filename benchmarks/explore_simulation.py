"""What exploring 64 merges with Optuna loses against scoring a grid on all dev rows: simulated.

    python benchmarks/explore_simulation.py > benchmarks/results/explore_simulation.md

A merge is a recipe of 8, a density and a scale. Its quality is a parabola over log2 of the scale
and one over the density, with optima of the recipe's own. A row is answered rightly where that
exceeds the row's difficulty, which all merges share, plus noise that merges of one recipe share at
near scales and densities (random Fourier features of a Gaussian kernel), and a merge's own. The
margin of the gold label is that times a confidence that grows with the scale, so that the NLL likes
smaller scales than accuracy.

What is compared is the true accuracy, on endless rows, of what is left in the end: `grid` scores 8
recipes at 4 scales and 2 densities on all rows, `halving` halves these 64; `explore` has 1 merge
listed and 63 proposed in 4 rounds and halves them, as koinize does; `random` halves 64 points drawn
at random. Exploring looks between the points of the grid, and can end above the best of it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koinize.digest import digest
from koinize.metrics import metrics
from koinize.search.halving import part, ranked, rounds, rungs
from koinize.search.proposals import Trial, propose
from koinize.search.space import Space

Floats = NDArray[np.float64]
Point = Mapping[str, Any]

LANGUAGES, TRIALS, FEATURES = 5, 64, 48
DIFFICULTY, OWN = 0.8, 0.3  # share of the noise that is a row's; of the rest, a merge's alone
ACCURACY, NORMAL, LABELS = metrics.get("accuracy"), NormalDist(), ("0", "1")
MEDIAN = NORMAL.inv_cdf(0.73)
RECIPES = (
    "ties", "dare-ties", "knots-ties", "knots-dare-ties",
    "core-ties", "core-dare-ties", "dare-linear", "magnitude-prune",
)  # fmt: skip
SPACE = Space(
    recipe=RECIPES,
    density={"low": 0.2, "high": 1.0},
    scale={"low": 0.5, "high": 4.0},
    trials=TRIALS - 1,
)
GRID: list[Point] = [
    {"recipe": recipe, "density": density, "scale": scale}
    for recipe in RECIPES
    for density in (0.4, 0.8)
    for scale in (0.7, 1.0, 1.41, 2.0)
]


@dataclass
class World:
    """The merges of one task, and how they answer so many rows."""

    random: np.random.Generator
    rows: int

    def __post_init__(self) -> None:
        draw = self.random
        self.best_scale = draw.normal(0.5, 0.5) + draw.normal(size=8) * 0.2  # of log2
        self.best_density = np.clip(draw.normal(0.7, 0.15) + draw.normal(size=8) * 0.1, 0.2, 1.0)
        self.offset = draw.normal(size=8) * 0.03
        self.frequencies = draw.normal(size=(FEATURES, 2)) / (1.0, 0.3)
        self.phases = draw.uniform(0, 2 * math.pi, FEATURES)
        self.difficulty = draw.normal(size=self.rows)
        self.common = draw.normal(size=(self.rows, FEATURES))
        self.recipes = draw.normal(size=(8, self.rows, FEATURES))
        self.seed = int(draw.integers(2**32))

    def quality(self, point: Point) -> float:
        """In standard deviations of the difficulty."""
        recipe = RECIPES.index(point["recipe"])
        scale = math.log2(point["scale"]) - self.best_scale[recipe]
        density = point["density"] - self.best_density[recipe]
        return float(MEDIAN + self.offset[recipe] - 0.08 * scale**2 - 0.3 * density**2)

    def accuracy(self, point: Point) -> float:
        """On endless rows, in points."""
        return 100 * NORMAL.cdf(self.quality(point))

    def margins(self, point: Point) -> Floats:
        """By how much the gold label leads (rows,), before confidence."""
        recipe, scale = RECIPES.index(point["recipe"]), math.log2(point["scale"])
        place = self.frequencies @ np.array([scale, point["density"]]) + self.phases
        features = math.sqrt(2 / FEATURES) * np.cos(place)
        near = math.sqrt(0.7) * self.common + math.sqrt(0.3) * self.recipes[recipe]
        own = np.random.default_rng([self.seed, hash_of(point)]).normal(size=self.rows)
        noise = math.sqrt(1 - OWN) * near @ features + math.sqrt(OWN) * own
        shared = math.sqrt(DIFFICULTY) * self.difficulty
        return self.quality(point) - shared - math.sqrt(1 - DIFFICULTY) * noise

    def answers(self, point: Point, share: float) -> dict[str, list[dict[str, object]]]:
        """The result rows by language up to a share of the rows."""
        each, margins = self.rows // LANGUAGES, self.margins(point)
        confident = 2 * 2 ** (0.7 * math.log2(point["scale"]))
        found = {}
        for place in range(LANGUAGES):
            last = part(each, share, place, LANGUAGES)
            some = margins[place * each : place * each + last]
            if last:
                found[str(place)] = [row(one, confident, n) for n, one in enumerate(some)]
        return found


def row(margin: float, confidence: float, number: int) -> dict[str, object]:
    """As koinize keeps it."""
    scores = [0.0, float(margin * confidence)]
    return {"key": str(number), "gold": "1", "prediction": str(int(margin > 0)), "scores": scores}


def hash_of(point: Point) -> int:
    """The same number for the same point, in every process."""
    return int(digest(dict(point))[:8], 16)


def halved(
    world: World, points: Sequence[Point], labels: tuple[str, ...], *, tempered: bool = True
) -> Point:
    """What is left of these; of a grid that is listed, the NLL is as it is."""
    alive = list(range(len(points)))
    for rung in rungs(len(points)):
        rows = {str(one): world.answers(points[one], rung.share) for one in alive}
        alive = [
            int(one.candidate)
            for one in ranked(ACCURACY, labels, rows, rung.share, tempered=tempered)[: rung.keep]
        ]
    return points[alive[0]]


def explored(world: World, labels: tuple[str, ...]) -> list[Point]:
    """One merge that is listed, and what Optuna proposes besides."""
    share, points = rungs(TRIALS)[0].share, [dict(GRID[1])]
    for count in rounds(SPACE.trials):
        rows = {str(n): world.answers(one, share) for n, one in enumerate(points)}
        order = [int(one.candidate) for one in ranked(ACCURACY, labels, rows, share, tempered=True)]
        trials = [Trial(points[n], place) for place, n in enumerate(order) if n]
        known = [digest(SPACE.settings(one, ()).identity()) for one in points]
        points += propose(SPACE, (), trials, count, known)
    return list(points)


def drawn(random: np.random.Generator) -> list[Point]:
    """64 points at random."""
    return [
        {
            "recipe": RECIPES[random.integers(8)],
            "density": float(random.uniform(0.2, 1.0)),
            "scale": float(2 ** random.uniform(-1, 2)),
        }
        for _ in range(TRIALS)
    ]


def simulated(seed: int, rows: int, labels: tuple[str, ...]) -> dict[str, float]:
    """The true accuracy of what each way ends with, in one world."""
    world = World(np.random.default_rng([seed, rows]), rows)
    on_all = [float((world.margins(one) > 0).mean()) for one in GRID]
    return {
        "grid": world.accuracy(GRID[int(np.argmax(on_all))]),
        "best of the grid": max(map(world.accuracy, GRID)),
        "halving": world.accuracy(halved(world, GRID, labels, tempered=False)),
        "random": world.accuracy(halved(world, drawn(world.random), labels)),
        "explore": world.accuracy(halved(world, explored(world, labels), labels)),
    }


def cost() -> float:
    """Scorings of one candidate on all rows: rung by rung, those alive answer what is new."""
    alive, before, found = TRIALS, 0.0, 0.0
    for rung in rungs(TRIALS):
        found, before, alive = found + alive * (rung.share - before), rung.share, rung.keep
    return found


def main() -> None:
    """The table."""
    sets = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print("# Exploring 64 merges with Optuna: simulated\n")
    print(
        f"{sets} tasks a line; true accuracy in points less that of scoring the 64 merges of a grid"
    )
    print(
        "on all dev rows, mean (standard error); above 0 is better. Each of the first three costs"
    )
    print(f"{cost():.2f} scorings of one candidate on all rows, where scoring the grid is 64.\n")
    print("| dev rows | NLL | explore | halving the grid | halving random points "
          "| explore ends within .5 or above | best of the grid |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for rows in (300, 1000):
        for labels in (LABELS, ()):
            found = [simulated(seed, rows, labels) for seed in range(sets)]
            less = {
                way: [one[way] - one["grid"] for one in found]
                for way in ("explore", "halving", "random", "best of the grid")
            }
            shown = [
                f"{fmean(some):+.2f} ({stdev(some) / math.sqrt(sets):.2f})"
                for some in less.values()
            ]
            within = fmean(one >= -0.5 for one in less["explore"])
            said = "with" if labels else "without"
            print(
                f"| {rows} | {said} | {' | '.join(shown[:3])} | {within:.0%} | {shown[3]} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
