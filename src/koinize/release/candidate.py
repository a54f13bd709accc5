"""What a finished run offers for release: the merge chosen on dev, and all that speaks for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from koinize.digest import digest
from koinize.errors import InputError
from koinize.ledger import Interval, covered, total
from koinize.metrics import JudgedMetric, Metric, ResultRow
from koinize.pipeline import Project, Step
from koinize.pipeline.lineage import ancestors
from koinize.pipeline.results import TEST, Results, refuse_missing
from koinize.pipeline.systems import BASE, COMB
from koinize.settings import MEMORY_ONLY, EvaluationSpec
from koinize.store import Artifact


@dataclass(frozen=True)
class Candidate:
    """The chosen merge of one task.

    `rows` are its result rows on test, by language. `gated` names the metrics that the gate asks:
    those whose margin koinize.yaml states, else the task's first one. `inputs` maps the name of
    every step that it is made or judged by to the digests which that step read; `data` counts the
    rows behind the digests. `artifacts` maps the names of those steps to ids, which must be kept
    with the release. `tests` are the evaluations on test, by language. `baselines` has the same
    rows of the base model and of COMB, as far as they were scored.
    """

    task: str
    system: str
    adapter: Artifact
    rows: Mapping[str, Sequence[ResultRow]]
    metrics: Mapping[str, Metric]
    margins: Mapping[str, float]
    gated: tuple[str, ...]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    data: Mapping[str, Mapping[str, Any]]
    artifacts: Mapping[str, str]
    cost: Mapping[str, Any]
    tests: Mapping[str, Step]
    baselines: Mapping[str, Mapping[str, Sequence[ResultRow]]]

    @property
    def identity(self) -> str:
        """Digest of the adapter and the evaluations: equal for what is the same candidate."""
        return digest([self.task, self.adapter.id, sorted(self.artifacts.values())])

    @property
    def judges(self) -> list[str]:
        """The judges of the gated metrics that need a model."""
        gated = (self.metrics[name] for name in self.gated)
        return [one.judge for one in gated if isinstance(one, JudgedMetric)]

    @property
    def gated_margins(self) -> dict[str, float]:
        """The points that a language may lose, by the metrics that the gate asks."""
        return {name: self.margins[name] for name in self.gated}


def candidate(project: Project, task: str) -> Candidate:
    """The candidate that the project's store holds now; every artifact read is verified.

    Raises InputError while steps that it stands on are missing.
    """
    results = Results(project, task)
    nothing = f"task '{task}' has nothing to release"
    choice = results.choice()
    refuse_missing(project, [choice], nothing)
    system = results.chosen()
    merge, tests = results.made(system), results.of_split(system, TEST)
    judged = results.judged(tests.values())
    refuse_missing(project, [merge, *tests.values(), *judged], nothing)
    _refuse_other_tests(merge, tests.values(), nothing)
    by_id = {step.id: step for step in project.steps}
    trainings = results.parts(merge)
    behind = _behind([*tests.values(), *judged], by_id)
    behind |= {one for step in trainings for one in ancestors(step, project.store)}
    made_of = [*trainings, merge, choice, *tests.values(), *judged]
    return Candidate(
        task=task,
        system=system.title,
        adapter=results.open(merge),
        rows={language: results.rows(step) for language, step in tests.items()},
        metrics=results.metrics,
        margins=results.margins,
        gated=results.stated_margins or results.definition.metrics[:1],
        settings=_settings(results, merge),
        inputs={step.name: dict(step.identity) for step in made_of},
        data=_data(task, [*trainings, merge, *tests.values()]),
        artifacts={step.name: step.id for step in (*trainings, merge, *tests.values(), *judged)},
        cost=_cost(project.intervals(), behind),
        tests=tests,
        baselines=_baselines(results, tests),
    )


def _refuse_other_tests(merge: Step, tests: Iterable[Step], what: str) -> None:
    """Raise InputError, which begins with `what`, where another adapter was tested than `merge`."""
    if other := [one.name for one in tests if one.uses.adapter != merge.id]:
        raise InputError(
            f"{what}: '{other[0]}' scored another adapter than '{merge.name}'",
            expected="test scores of the very adapter that would be released",
            remedy="run `koinize run --choose-again`, and report this: it is a fault of koinize",
        )


def _baselines(
    results: Results, tests: Mapping[str, Step]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What training nothing and training on everything answered to the same test rows, where that
    is another adapter than the candidate.
    """
    present, found = results.project.store.ids(), {}
    for system in (BASE, COMB):
        steps = results.of_split(system, TEST)
        made = {one.id for one in steps.values()}
        is_other = made != {one.id for one in tests.values()}
        there = made | {one.id for one in results.judged(steps.values())} <= present
        if steps.keys() == tests.keys() and there and is_other:
            found[system.title] = {one: results.rows(step) for one, step in steps.items()}
    return found


def _behind(steps: Iterable[Step], by_id: Mapping[str, Step]) -> set[str]:
    """The ids of these steps and of all that they need, the choosing included, but for baselines,
    whose choices are only made before anything is tested; what a kept choice once chose among may
    be no step any more.
    """
    baselines = {one.id for one in by_id.values() if one.kind == "select" and one.address.role}
    found: set[str] = set()
    waiting = list(steps)
    while waiting:
        step = waiting.pop()
        if step.id not in found:
            found.add(step.id)
            needed = {*step.needs} - (baselines - {*step.uses.ids()})
            waiting.extend(by_id[need] for need in needed if need in by_id)
    return found


def _settings(results: Results, merge: Step) -> dict[str, Any]:
    """In full, defaults too: a reader years later does not know what they were."""
    spec, definition = results.project.spec, results.definition
    return {
        "base": spec.base.model_dump(mode="json"),
        "languages": list(spec.languages),
        "lora": spec.lora.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json"),
        "merge": merge.merge.model_dump(mode="json") if merge.merge else {},
        "evaluation": definition.evaluation(spec.evaluation, TEST).model_dump(mode="json"),
        "task": definition.model_dump(mode="json"),
    }


def answered_alike(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether evaluation settings are the same: what was not known then was at its default, and
    what only bounds memory says nothing of answers.
    """
    defaults, silent = EvaluationSpec().model_dump(mode="json"), dict.fromkeys(MEMORY_ONLY)
    return {**defaults, **before, **silent} == {**defaults, **now, **silent}


def _data(task: str, steps: Iterable[Step]) -> dict[str, dict[str, Any]]:
    """The rows behind these steps; those of another task under its name."""
    return {
        label if step.task == task else f"{step.task}: {label}": {
            "digest": step.inputs[label],
            "rows": rows,
        }
        for step in steps
        for label, rows in sorted(step.rows.items())
    }


def _cost(intervals: Sequence[Interval], artifacts: set[str]) -> dict[str, Any]:
    """What the ledger says that these artifacts took, failed and interrupted work included."""
    spent = [one for one in intervals if one.artifact in artifacts]
    money: dict[str, Decimal] = {}
    for one in spent:
        if one.price:
            currency = one.price["currency"]
            money[currency] = money.get(currency, Decimal(0)) + one.cost
    return {
        "wall_seconds": float(covered(spent)),
        "machine_seconds": str(total(spent)[0]),
        "money": {currency: f"{amount:.6f}" for currency, amount in sorted(money.items())},
        "intervals": len(spent),
        "without_price": sum(not one.price for one in spent),
    }
