"""What is compared: the trainings of a job, and the adapters that each arm scores.

A job is one (task, seed, group of arms) and stands alone. Its trainings know which adapter they
start from, so those that can run at once are found by their depth; an arm lists candidates, each
a weighted sum of adapters or a recipe of the merge engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scenarios import (
    BEFORE,
    FULL,
    LEAN,
    ROUNDS,
    SHARES,
    Branching,
    Rows,
    all_of,
    anchors,
    branch_rows,
    epochs_of,
    equal_compute,
    groups,
    months,
    rounds,
    rows_of_month,
    steps,
    sum_weights,
    with_part,
)

from koinize.settings import TrainingSpec
from koinize.tasks import Example

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.25)
"""What is tried of a branch on dev, beside 0, the trunk."""
FIXED = (0.5, 1.0)
"""What is scored on test whatever dev says."""
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Of the mean of adapters from the base."""
RECIPES: dict[str, dict[str, object]] = {
    "ties 0.5": {"recipe": "ties", "density": 0.5},
    "ties 1": {"recipe": "ties", "density": 1.0},
    "knots-ties 0.5": {"recipe": "knots-ties", "density": 0.5},
    "dare-ties 0.5": {"recipe": "dare-ties", "density": 0.5},
}


@dataclass(frozen=True)
class Planned:
    """One training: its rows, its settings, and what it goes on from: the base, the adapter that is
    named, or the mean of several.
    """

    name: str
    rows: tuple[Example, ...]
    settings: TrainingSpec
    start: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """Adapters with their weights in a sum, or, with a recipe, those that it merges."""

    weights: Mapping[str, float]
    recipe: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """Candidates by label. Several are scored on dev; `fixed` and the chosen one on test."""

    name: str
    candidates: Mapping[str, Candidate]
    fixed: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The trainings and arms of one job, what matters most first."""

    trainings: tuple[Planned, ...]
    arms: tuple[Arm, ...]

    def needed(self, arms: Iterable[Arm]) -> list[Planned]:
        """The trainings behind these arms, those that they start from included."""
        by_name = {one.name: one for one in self.trainings}
        wanted: set[str] = set()
        names = [name for arm in arms for one in arm.candidates.values() for name in one.weights]
        while names:
            name = names.pop()
            if name not in wanted:
                wanted.add(name)
                names += by_name[name].start
        return [one for one in self.trainings if one.name in wanted]

    def waves(self) -> list[list[Planned]]:
        """Trainings that can run at once: first those from the base, then those from these..."""
        by_name = {one.name: one for one in self.trainings}

        def depth(one: Planned) -> int:
            return max((1 + depth(by_name[name]) for name in one.start), default=0)

        found: dict[int, list[Planned]] = {}
        for one in self.trainings:
            found.setdefault(depth(one), []).append(one)
        return [found[level] for level in sorted(found)]


class Builder:
    """Collects the trainings and arms of a job over one draw of the rows."""

    def __init__(self, rows: Rows, training: TrainingSpec, seed: int, *, lean: bool) -> None:
        self.rows, self.seed, self.lean = rows, seed, lean
        self.training = training.model_copy(update={"seed": seed, "patience": None})
        self.trainings: dict[str, Planned] = {}
        self.arms: list[Arm] = []

    @property
    def branchings(self) -> tuple[Branching, ...]:
        """How branches are trained: a lean way too where COMB sees every row only once."""
        ways = (FULL, LEAN) if self.training.epochs == 1 else (FULL,)
        return ways[-1:] if self.lean else ways

    def plan(self) -> Plan:
        """What was collected."""
        return Plan(tuple(self.trainings.values()), tuple(self.arms))

    def as_usual(
        self,
        name: str,
        rows: Sequence[Example],
        epochs: int | None = None,
        start: tuple[str, ...] = (),
    ) -> str:
        """A training with the task's own settings, from the base or the mean of adapters."""
        update = {"epochs": epochs or self.training.epochs}
        settings = self.training.model_copy(update=update)
        self.trainings[name] = Planned(name, tuple(rows), settings, start)
        return name

    def go_on(self, name: str, rows: Sequence[Example], branching: Branching, start: str) -> str:
        """A training that goes on from an adapter, with a branch's settings."""
        update = {
            "epochs": branching.epochs,
            "learning_rate": branching.learning_rate,
            "schedule": "linear",
        }
        settings = self.training.model_copy(update=update)
        self.trainings[name] = Planned(name, tuple(rows), settings, (start,))
        return name

    def comb(self) -> None:
        """The arm that all others are compared with: everything, trained from the base."""
        self.alone("comb", self.as_usual("comb", all_of(self.rows)))

    def alone(self, name: str, adapter: str) -> None:
        """An arm that is one adapter."""
        self.arms.append(Arm(name, {"1": Candidate({adapter: 1.0})}, ("1",)))

    def line(
        self,
        name: str,
        trunk: str,
        branches: Sequence[str],
        fixed: Sequence[float] = FIXED,
        tried: Sequence[float] = WEIGHTS,
    ) -> None:
        """An arm along the line from the trunk through its branches; weight 0 is the trunk, 'mean'
        one over the number of branches, and 'average' that of trunk and branches.
        """
        weights = {f"{one:g}": one for one in sorted({*fixed} if self.lean else {*tried, *fixed})}
        always = [f"{one:g}" for one in fixed]
        if len(branches) > 1:
            shares = {"mean": 1 / len(branches), "average": 1 / (1 + len(branches))}
            weights |= shares
            always += shares
        candidates = {"0": Candidate({trunk: 1.0})} | {
            label: Candidate(sum_weights(trunk, branches, one)) for label, one in weights.items()
        }
        self.arms.append(Arm(name, candidates, ("0", *always)))

    def branch(
        self, name: str, known: Rows, language: str, branching: Branching, trunk: str
    ) -> str:
        """A language's branch from a trunk that knew these rows."""
        rows = branch_rows(known, self.rows, language, branching, self.seed)
        return self.go_on(name, rows, branching, trunk)


def main_arms(build: Builder) -> None:
    """COMB, every language updated in turn, every language added in turn, and the controls."""
    rows = build.rows
    build.comb()
    for share, what in ((BEFORE, "update"), (0.0, "add")):
        for language in rows:
            known = with_part(rows, [language], share)
            trunk = build.as_usual(f"{what}-{language}-trunk", all_of(known))
            for way in build.branchings:
                name = f"{what}-{language}-{way.name}"
                branch = build.branch(name, known, language, way, trunk)
                build.line(f"{what}/{language}/{way.name}", trunk, [branch])
    if build.lean:
        return
    for way in build.branchings:
        # As many rows as a branch of the language with the most of them sees.
        visits = way.epochs * max(
            len(branch_rows(rows, rows, one, way, build.seed)) for one in rows
        )
        some, epochs = equal_compute(rows, visits)
        name = f"equal-{way.name}"
        build.alone(f"equal/{way.name}", build.as_usual(name, some, epochs))
    _new_rows_alone(build)


def _new_rows_alone(build: Builder) -> None:
    """COMB continued on the new rows alone."""
    for share, what in ((BEFORE, "update"), (0.0, "add")):
        for language, own in build.rows.items():
            old = set(with_part(build.rows, [language], share).get(language, ()))
            new = [row for row in own if row not in old]
            start = f"{what}-{language}-trunk"
            name = build.go_on(f"{what}-{language}-continued", new, FULL, start)
            build.alone(f"{what}/{language}/continued", name)


def paper_arms(build: Builder) -> None:
    """The paper's way: one adapter a language from the base, merged."""
    adapters = [build.as_usual(f"indv-{one}", rows) for one, rows in build.rows.items()]
    means = {
        f"mean {scale:g}": Candidate(dict.fromkeys(adapters, scale / len(adapters)))
        for scale in SCALES
    }
    recipes = {
        name: Candidate(dict.fromkeys(adapters, 1.0), recipe) for name, recipe in RECIPES.items()
    }
    build.arms.append(Arm("paper", means | recipes, ()))


def several_arms(build: Builder) -> None:
    """Two and three languages change: branches apart in one release, and one after the other."""
    for changed in groups(tuple(build.rows)):
        known = with_part(build.rows, changed, BEFORE)
        group = "+".join(changed)
        trunk = build.as_usual(f"{group}-trunk", all_of(known))
        for way in build.branchings:
            branches = [
                build.branch(f"{group}-{one}-{way.name}", known, one, way, trunk) for one in changed
            ]
            build.line(f"several/{group}/{way.name}", trunk, branches)
            for order in (changed, changed[::-1]):
                last = _in_turn(build, group, known, order, way)
                name = f"in-turn/{'>'.join(order)}/{way.name}"
                build.line(name, trunk, [last], tried=())


def _in_turn(build: Builder, group: str, known: Rows, order: Sequence[str], way: Branching) -> str:
    """One branch from the former one, each with anchors among the rows of its day."""
    today = dict(known)
    last = f"{group}-{order[0]}-{way.name}"  # the first is the branch that there is already
    today[order[0]] = build.rows[order[0]]
    for place, language in enumerate(order[1:], start=2):
        rows = (*build.rows[language], *anchors(today, language, way.anchors, build.seed))
        last = build.go_on(f"{'>'.join(order[:place])}-{way.name}-{group}", rows, way, last)
        today[language] = build.rows[language]
    return last


def half_year_arms(build: Builder) -> None:
    """Six months of one language each: branches from the frozen trunk, and COMB every month."""
    changes = months(build.rows)
    first = rows_of_month(build.rows, changes, 0)
    trunk = build.as_usual("month-0", all_of(first))
    way = build.branchings[-1]
    branches: dict[str, str] = {}
    for number, language in enumerate(changes, start=1):
        today = rows_of_month(build.rows, changes, number)
        comb = build.as_usual(f"month-{number}", all_of(today))
        build.alone(f"month/{number}/comb", comb)
        rows = (*today[language], *anchors(first, language, way.anchors, build.seed))
        name = f"month-{number}-{language}"
        branches[language] = build.go_on(name, rows, way, trunk)
        tried = sorted({0.25, 0.5, round(1 / math.sqrt(len(branches)), 3), 1.0})
        build.line(f"month/{number}/{way.name}", trunk, list(branches.values()), tried=tried)


def shares_arms(build: Builder) -> None:
    """A trunk of a share of every language's rows, and all languages as branches from it.

    A trunk is trained with the task's own epochs and, where these are fewer, with as many as make
    about half of COMB's steps.
    """
    build.comb()
    epochs, size = build.training.epochs, build.training.batch_size
    half = steps(len(all_of(build.rows)), epochs, size) / 2
    for share in SHARES:
        known = with_part(build.rows, build.rows, share)
        longer = epochs_of(half, len(all_of(known)), size)
        for many, name in ((epochs, f"{share:g}"), (longer, f"{share:g}-long")):
            if many == epochs and name.endswith("long"):
                continue
            trunk = build.as_usual(f"share-{name}-trunk", all_of(known), many)
            for way in build.branchings:
                branches = [
                    build.branch(f"share-{name}-{way.name}-{one}", known, one, way, trunk)
                    for one in build.rows
                ]
                build.line(f"share/{name}/{way.name}", trunk, branches, fixed=(0.5,), tried=())


def sync_arms(build: Builder) -> None:
    """Languages trained apart that meet several times: the mean of a round begins the next.

    A language's rows are shared out among the rounds, so that all rounds together see each of them
    as often as one training would. The first round begins from the base, with one A for all, or
    from a trunk of a share of the rows.
    """
    build.comb()
    known = with_part(build.rows, build.rows, SHARES[0])
    trunk = build.as_usual(f"sync-{SHARES[0]:g}-trunk", all_of(known))
    fewest = min(map(len, build.rows.values()))
    for count in (count for count in ROUNDS if count <= fewest):
        parts = {one: rounds(own, count) for one, own in build.rows.items()}
        for way, first in (("from-base", ()), (f"from-{SHARES[0]:g}", (trunk,))):
            start: tuple[str, ...] = first
            for number in range(count):
                start = tuple(
                    build.as_usual(
                        f"sync-{count}-{way}-{number + 1}-{one}", parts[one][number], start=start
                    )
                    for one in build.rows
                )
            mean = Candidate(dict.fromkeys(start, 1 / len(start)))
            build.arms.append(Arm(f"sync/{count}/{way}", {"mean": mean}, ("mean",)))


GROUPS: dict[str, Callable[[Builder], None]] = {
    "main": main_arms,
    "paper": paper_arms,
    "several": several_arms,
    "half-year": half_year_arms,
    "shares": shares_arms,
    "sync": sync_arms,
}


def plan_of(
    group: str, rows: Rows, training: TrainingSpec, seed: int, *, lean: bool = False
) -> Plan:
    """The plan of one job; a lean one has neither controls nor a choice on dev."""
    build = Builder(rows, training, seed, lean=lean)
    GROUPS[group](build)
    return build.plan()
