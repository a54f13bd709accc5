"""What searching a scale on dev is worth, by the number of dev rows: simulated candidates.

    python benchmarks/scale_simulation.py > benchmarks/results/scale_simulation.md

Each of five languages has n dev rows. A row is answered rightly at scale s where q(s) exceeds its
own difficulty plus noise that neighbouring scales share; q(s) falls with the squared distance of
log2 s from an optimum. The share of rows that change their answer between neighbouring scales is
printed, to be compared with real ones. What counts is the true accuracy at the scale that a rule
takes, less that at scale 1. `best of three`: the best on dev of the scales .71, 1 and 1.41; `open`:
the best of all that the search looked at; `ours`: what `koinize.search.line` finds.
"""

from __future__ import annotations

import math
import sys
from statistics import NormalDist

import numpy as np

from koinize.metrics import metrics
from koinize.search.line import decide, first

LANGUAGES, STEP, REACH = 5, math.sqrt(2), 9
SHARED, ALIKE = 0.8, 0.9  # variance that all scales of a row share; correlation of the rest
CURVATURE = 0.12  # of q, in standard deviations, per squared log2 of the scale
SETS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
ACCURACY, NORMAL = metrics.get("accuracy"), NormalDist()


class Candidate:
    """A candidate's answers at every scale, drawn once."""

    def __init__(self, optimum: float, n: int, random: np.random.Generator) -> None:
        self.optimum, self.base = optimum, random.normal(0.6, 0.2)
        shape = (LANGUAGES, n)
        noise = random.normal(size=shape)
        self.difficulty = {}
        shared = random.normal(size=shape)
        for k in range(-REACH, REACH + 1):
            self.difficulty[k] = math.sqrt(SHARED) * shared + math.sqrt(1 - SHARED) * noise
            noise = ALIKE * noise + math.sqrt(1 - ALIKE**2) * random.normal(size=shape)

    def level(self, scale: float) -> float:
        """What a row's difficulty is compared with."""
        return self.base - CURVATURE * (math.log2(abs(scale)) - self.optimum) ** 2

    def true(self, scale: float) -> float:
        """Points that it would have on endless rows."""
        return 100 * NORMAL.cdf(self.level(scale))

    def right(self, scale: float) -> np.ndarray:
        """Which rows it answers rightly (languages, n)."""
        return self.level(scale) > self.difficulty[round(math.log(scale, STEP))]

    def rows(self, scale: float) -> dict[str, list[dict[str, str]]]:
        """The same as result rows."""
        return {
            str(language): [
                {"key": f"{language}-{i}", "gold": "1", "prediction": str(int(one))}
                for i, one in enumerate(some)
            ]
            for language, some in enumerate(self.right(scale))
        }


def search(candidate: Candidate) -> dict[str, float]:
    """The scale that every rule takes."""
    seen = {scale: candidate.rows(scale) for scale in first(1.0)}
    points = {scale: candidate.right(scale).mean() for scale in seen}
    three = max(points, key=points.__getitem__)
    while (decision := decide(ACCURACY, (), 1.0, seen)).found is None:
        seen |= {scale: candidate.rows(scale) for scale in decision.next}
    best = max(decision.seen, key=lambda one: one.points).scale
    return {"best of three": three, "open": best, "ours": decision.found, "looks": len(seen)}


def main() -> None:
    """The table."""
    print("# Searching a scale: simulated\n")
    print(f"{SETS} candidates a line; true points gained over scale 1, mean (standard error), and")
    print("the share of candidates that lost more than half a point by it.\n")
    print(
        "| optimum | dev rows a language | changed answers | best of three | open | ours | looks |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, centre in (("at 1", 0.0), ("at 1.4, spread 1.4", 0.5), ("at 2.8", 1.5)):
        for n in (20, 60, 200):
            random = np.random.default_rng(n)
            spread = 0.5 if "spread" in name else 0.0
            gains: dict[str, list[float]] = {}
            for _ in range(SETS):
                one = Candidate(random.normal(centre, spread), n, random)
                found = search(one)
                for rule, scale in found.items():
                    value = scale if rule == "looks" else one.true(scale) - one.true(1.0)
                    gains.setdefault(rule, []).append(value)
                gains.setdefault("changed", []).append(
                    (one.right(1.0) != one.right(1.41)).mean() * 100
                )
            cells = [said(gains[rule]) for rule in ("best of three", "open", "ours")]
            changed, looks = np.mean(gains["changed"]), np.mean(gains["looks"])
            print(f"| {name} | {n} | {changed:.1f} % | {' | '.join(cells)} | {looks:.1f} |")


def said(gains: list[float]) -> str:
    """One cell."""
    error = np.std(gains) / math.sqrt(len(gains))
    lost = np.mean(np.array(gains) < -0.5)
    return f"{np.mean(gains):+.2f} ({error:.2f}), {lost:.0%} lost"


if __name__ == "__main__":
    main()
