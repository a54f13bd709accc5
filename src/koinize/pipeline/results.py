"""What a finished task says: the one place where its results are read.

`Results.of(project, task)` knows the steps of the task and opens their artifacts, verified, when
they are asked for. Whoever shows, compares or releases something reads it here: the choice, the
merges, the rows of a system, a metric over its labels, and what a language may lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from koinize.errors import InputError
from koinize.ledger.address import BRANCH, System
from koinize.merge.recipe import MergeSettings
from koinize.metrics import Metric, ResultRow, metrics
from koinize.pipeline.margins import margins_of
from koinize.pipeline.project import Project
from koinize.pipeline.step import Step
from koinize.pipeline.systems import candidates
from koinize.store import Artifact
from koinize.tasks import Task

DEV, TEST = "dev", "test"


def refuse_missing(project: Project, needed: Iterable[Step], what: str) -> None:
    """Raise InputError, which says what there is nothing to do with, while one of these is missing.

    `what` is such as "task 'topic' has nothing to release".
    """
    present = project.store.ids()
    absent = [step.name for step in needed if step.id not in present]
    if absent:
        raise InputError(f"{what}: '{absent[0]}' is missing", remedy="run `koinize run` first")


def lacking(project: Project) -> Iterator[tuple[Step, str]]:
    """The evaluations by an older koinize whose rows lack what a metric of today reads; which."""
    present = project.store.ids()
    for task in project.spec.tasks:
        results = Results(project, task)
        reads = {name: one.also for name, one in results.metrics.items() if one.also}
        found = {one.id: one for one in results.steps if one.kind == "evaluate"} if reads else {}
        for step in (one for one in found.values() if one.id in present):
            row = results.rows(step)[0]
            for name, columns in reads.items():
                if lacks := [one for one in columns if one not in row]:
                    yield step, f"{step.name}: its rows lack '{lacks[0]}', which {name} reads"
                    break


@dataclass(frozen=True)
class Results:
    """The results of one task of a project."""

    project: Project
    task: str

    @property
    def definition(self) -> Task:
        """The task as koinize.yaml has it."""
        return self.project.spec.tasks[self.task]

    @cached_property
    def steps(self) -> list[Step]:
        """Every step of the task, with the seed of what is released."""
        return [step for step in self.project.steps if step.task == self.task and not step.seed]

    @property
    def repeated(self) -> list[Step]:
        """The scores on test with further seeds."""
        return [
            step
            for step in self.project.steps
            if step.task == self.task and step.seed and step.kind == "evaluate"
        ]

    @cached_property
    def candidates(self) -> list[MergeSettings]:
        """The merges that the release is chosen among, in the order of koinize.yaml; those
        that a search left, where there is one.
        """
        if self.project.spec.merge.is_searched:
            return [step.merge for step in self.merges.values() if step.merge]
        branches = [
            step.language for step in self.steps if step.address.role == BRANCH and step.stands
        ]
        has_trunk = self.project.spec.training.has_trunk
        return candidates(self.project.spec, branches if has_trunk else None, self.task)

    @cached_property
    def merges(self) -> dict[System, Step]:
        """The merges that the release is chosen among, by system."""
        found = {system: self.made(system) for system in self.choice().uses.candidates}
        return {system: step for system, step in found.items() if step.kind == "merge"}

    def made(self, system: System, role: str = "") -> Step:
        """The step that makes what can be chosen: a merge, or the trunk.

        What was chosen for the release once is the merge from the adapters of today, also where
        a baseline has the one that it was (`pipeline.keeping`).
        """
        if not role and system in self._released:
            return self._released[system]
        return self._by_id[self.choice(role).uses.candidates[system]]

    @cached_property
    def _released(self) -> dict[System, Step]:
        """The merges that could be released, by system; MEAN's, too, where they are the same."""
        merges = (one for one in self.steps if one.kind == "merge" and not one.address.role)
        return {one.system: one for one in merges}

    @property
    def not_scored_again(self) -> list[str]:
        """The titles of what stands as it was while the recipe is kept."""
        others = [one.title for one in self.choice().uses.candidates if one != self.chosen()]
        others += [one.address.role.upper() for one in self.steps if self._is_kept(one)]
        others += [one.system.title for one in self.steps if one.kind == "evaluate" and one.stale]
        return list(dict.fromkeys(filter(None, others)))

    @property
    def is_kept(self) -> bool:
        """Whether the recipe was chosen when the adapters were others."""
        chosen = self.chosen()
        return self.made(chosen).id != self.choice().uses.candidates[chosen]

    def _is_kept(self, step: Step) -> bool:
        """Whether it chose among what is made otherwise today."""
        found = [self._by_id.get(one) for one in step.uses.candidates.values()]
        return any(one is None or one.stale for one in found)

    @cached_property
    def _by_id(self) -> dict[str, Step]:
        """Steps of two names, such as a trunk that is COMB, by the first; those of this task before
        those of others.
        """
        return {step.id: step for step in reversed([*self.steps, *self.project.steps])}

    def parts(self, made: Step) -> list[Step]:
        """The steps that train what a merge is made of, a trunk and its anchors among them."""
        by_id, uses = self._by_id, made.uses
        needed = [*([uses.trunk] if uses.trunk else []), *uses.adapters.values()]
        branches = [by_id[one] for one in needed]
        anchors = {one.uses.anchors for one in branches} - {""}
        return [*(by_id[one] for one in sorted(anchors)), *branches]

    @cached_property
    def evaluations(self) -> dict[tuple[System, str, str], Step]:
        """The evaluations by system, language and split."""
        return {
            (one.system, one.language, one.split): one
            for one in self.steps
            if one.kind == "evaluate" and not one.address.role  # none that only a baseline had
        }

    def of_split(self, system: System, split: str) -> dict[str, Step]:
        """One system's evaluations on a split, by language."""
        return {
            language: step
            for (whose, language, where), step in self.evaluations.items()
            if whose == system and where == split
        }

    def judged(self, steps: Iterable[Step]) -> list[Step]:
        """The steps that judged the answers of the evaluations among these."""
        return [
            one
            for step in steps
            if step.kind == "evaluate"
            for one in self.project.judging.steps(step)
        ]

    def choice(self, role: str = "") -> Step:
        """The step that chooses among the candidates or, as "mean", among MEAN's scales."""
        return next(
            step for step in self.steps if step.kind == "select" and step.address.role == role
        )

    def chosen(self, role: str = "") -> System:
        """The system that was chosen on dev. Raises KoinizeError while nothing was."""
        title = self.open(self.choice(role)).facts["chosen"]
        return next(one for one in self.choice(role).uses.candidates if one.title == title)

    def open(self, step: Step) -> Artifact:
        """What the step made, verified. Raises KoinizeError where it is not there."""
        return self.project.store.open(step.id)

    def rows(self, step: Step) -> list[dict[str, Any]]:
        """The result rows of an evaluation, as it was judged."""
        return self.project.rows(step)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The task's metrics over its labels; the first one chooses."""
        labels, texts = self.definition.label_set, self.definition.label_texts
        known = {name: metrics.get(name) for name in self.definition.metrics}
        judges = self.project.judging.of_task(self.task)
        return {
            name: one.over(labels).among(texts).by(judges.get(name, {}))
            for name, one in known.items()
        }

    @property
    def metric(self) -> Metric:
        """The one that chooses between merges."""
        return next(iter(self.metrics.values()))

    @cached_property
    def margins(self) -> dict[str, float]:
        """Points that a language may lose, by metric."""
        return margins_of(self.project.spec, self.task)

    @property
    def stated_margins(self) -> tuple[str, ...]:
        """The metrics whose margin koinize.yaml states."""
        own = {**self.project.spec.margins, **self.definition.margins}
        return tuple(name for name in self.definition.metrics if name in own)


def kept_recipes(project: Project) -> Iterator[str]:
    """Which recipes were kept, from which choice, and what was not scored again since."""
    begun = {one.artifact: one.started for one in project.intervals() if one.status == "done"}
    present = project.store.ids()
    for name in project.spec.tasks:
        results = Results(project, name)
        choice = results.choice()
        if choice.id not in present or not results.is_kept:
            continue
        if not (others := results.not_scored_again):
            continue  # one candidate alone: nothing was left out
        chosen, when = results.chosen(), begun.get(choice.id)
        since = f" of {when.date().isoformat()}" if when else ""
        yield (
            f"{name}: the recipe {chosen.title} is kept from the choice{since} and merged from "
            f"the adapters of today; not scored again: {', '.join(others)}; "
            "`koinize run --choose-again` chooses again"
        )


def value(metric: Metric, rows: Sequence[ResultRow]) -> float:
    """The metric's points over these rows."""
    return float(metric.aggregate(metric.statistics(rows).sum(axis=0)))
