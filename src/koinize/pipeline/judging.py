"""Metrics that need a model: which steps judge answers, and the rows with what was found.

A `judge` step reads the answers of one evaluation and keeps one score for each row, under what
decides it: the metric's version, its model's digest, and the settings (decision 023). A metric
that is set on references has one such step more in each language, which reads those of dev.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict

from koinize.digest import digest
from koinize.errors import BrokenError, InputError
from koinize.ledger.address import REFERENCES, Address, System
from koinize.metrics import CalibratedMetric, JudgedMetric, metrics
from koinize.model import base
from koinize.model.judge import config_of
from koinize.model.manner import ENCODING
from koinize.pipeline.inputs import Inputs
from koinize.pipeline.step import Step, Uses
from koinize.pipeline.work import ROWS, read_result_rows
from koinize.settings import differing
from koinize.spec import Spec
from koinize.store import Store
from koinize.store.typed import typed_lines

Place = tuple[System, str]  # system, and language or part

AGAIN = "remove the artifact, so that it is made again"


def asked(spec: Spec, task: str) -> dict[str, JudgedMetric]:
    """The metrics of a task that need a model, by name."""
    found = ((name, metrics.get(name)) for name in spec.tasks[task].metrics)
    return {name: one for name, one in found if isinstance(one, JudgedMetric)}


def identities(spec: Spec, root: Path, digests: Path) -> dict[str, str]:
    """What decides the scores of each such metric that a task asks for.

    Raises InputError for a model that is not found, or cannot judge as far as it lies here.
    """
    wanted = {name: one for task in spec.tasks for name, one in asked(spec, task).items()}
    return {name: _identity(spec, one, root, digests) for name, one in wanted.items()}


def fetch(spec: Spec, root: Path) -> None:
    """Have the judges' models here before anything is spent. Raises InputError where one cannot
    judge.
    """
    for task in spec.tasks:
        for name, metric in asked(spec, task).items():
            folder = base.prepare(spec.judges[name], root, base.user_cache())
            _refuse_unfit(metric, spec, folder)


def _refuse_unfit(metric: JudgedMetric, spec: Spec, folder: Path) -> None:
    judge = spec.judges[metric.name]
    if why := metric.unfit(judge, config_of(folder)):
        raise InputError(f"{judge.model} {why}", where=f"judges.{metric.name}:")


def _identity(spec: Spec, metric: JudgedMetric, root: Path, digests: Path) -> str:
    judge, where = spec.judges[metric.name], f"judges.{metric.name}"
    try:
        model = base.identity(judge, root, digests)
        folder = base.prepared(judge, root, base.user_cache(), digests)
    except InputError as error:
        raise _at(where, error) from error
    if folder:
        _refuse_unfit(metric, spec, folder)
    return metric.identity(judge, model)


def _at(where: str, error: InputError) -> InputError:
    """The same error, which says `base.model` of whichever model it is."""
    what = error.what.replace("base model", "model")
    place, remedy = (one.replace("base.", f"{where}.") for one in (error.where, error.remedy))
    return InputError(what, where=place, expected=error.expected, remedy=remedy)


@dataclass(frozen=True)
class Judging:
    """The judge steps of a project. `judges`: the identity of each metric's judge, by its name."""

    spec: Spec
    inputs: Inputs
    judges: Mapping[str, str] = field(default_factory=dict)

    def of_task(self, task: str) -> dict[str, dict[str, str]]:
        """Whose scores count, by metric and language: a judge that is set on the references of a
        language is one of its own.
        """
        return {
            name: {
                language: self._whose(self._references(task, language, name), name)
                for language in self.spec.languages
            }
            for name in asked(self.spec, task)
        }

    def _whose(self, references: Step | None, name: str) -> str:
        return references.id if references else self.judges[name]

    def steps(self, evaluation: Step) -> Iterator[Step]:
        """Those that judge these answers: by all of the task's metrics that need a model where the
        answers are reported, else by the one that decides a choice. Before each, the one that reads
        the references, where the metric is set on them.
        """
        task = evaluation.task
        decides = self.spec.tasks[task].metrics[0]
        for name in asked(self.spec, task):
            if name == decides or not evaluation.address.role:
                if references := self._references(task, evaluation.language, name):
                    yield references
                yield self._step(evaluation, name)

    def read_by_choices(self, scores: Mapping[Place, Step]) -> dict[Place, str]:
        """The ids of what a choice by these evaluations reads: the judge's, where the first metric
        needs one.
        """
        return {place: self._decisive(one).id for place, one in scores.items()}

    def _decisive(self, evaluation: Step) -> Step:
        task = evaluation.task
        decides = self.spec.tasks[task].metrics[0]
        return self._step(evaluation, decides) if decides in asked(self.spec, task) else evaluation

    def _references(self, task: str, language: str, name: str) -> Step | None:
        """The step that reads the references of dev; None where the metric is not set on them.

        Raises InputError for fewer of them than it needs.
        """
        metric, spec = metrics.get(name), self.spec.judges[name]
        if not isinstance(metric, CalibratedMetric):
            return None
        facts, label = self.inputs.splits[task, language, "dev"], f"dev rows {language}"
        if why := metric.too_few(spec, facts.rows):
            raise InputError(f"{task}: the {facts.rows} dev rows of {language} are {why}")
        encoding = self.inputs.manner.settings(self.spec.base.template)
        return Step(
            Address("judge", task, language=language, split="dev", role=REFERENCES, metric=name),
            inputs={**self._decides(task, language, name), label: facts.digest},
            rows={label: facts.rows},
            units=facts.bytes,
            sort=f"{task} {name}",
            languages=(language,),
            settings={"judge": differing(spec), **({ENCODING: encoding} if encoding else {})},
        )

    def _decides(self, task: str, language: str, name: str) -> dict[str, str]:
        """The judge, and where it reads what was asked the template that this is taken out of."""
        judge = {"judge": self.judges[name]}
        if "prompt" not in metrics.get(name).also:
            return judge
        return {**judge, "template": digest(self.spec.tasks[task].template(language))}

    def _step(self, evaluation: Step, name: str) -> Step:
        about = evaluation.address
        references = self._references(about.task, about.language, name)
        return Step(
            replace(about, kind="judge", metric=name),
            inputs=self._decides(about.task, about.language, name),
            uses=Uses(answers=evaluation.id, references=references.id if references else ""),
            units=evaluation.units,
            sort=f"{about.task} {name}",
            languages=evaluation.languages,
            settings={"judge": differing(self.spec.judges[name])},
            waits=evaluation.waits,
        )


def thresholds(spec: Spec, store: Store, steps: Iterable[Step]) -> Iterator[str]:
    """For people: where each judge that is set on references calls a text wrong, what that rests
    on, and how often it does so by mistake. Raises KoinizeError for what is broken.
    """
    for step in (one for one in steps if one.address.role == REFERENCES):
        name, facts = step.address.metric, store.open(step.id).facts
        judge, (rows,) = spec.judges[name], step.rows.values()
        metric = cast("CalibratedMetric", metrics.get(name))
        said = (
            f"{step.task}: {name}: in {step.language} a text is called {metric.fault} where "
            f"{judge.model} gives it a probability below {100 * facts['threshold']:.3g} % "
            f"{metric.chance}. The {rows} references of dev set this limit: of texts as right as "
            f"these, about {100 * metric.false_alarm(judge):.3g} in 100 or fewer are called "
            f"{metric.fault} by mistake; what {rows} references tell with 95 % certainty is that "
            f"it is no more than {ceil(100 * metric.at_worst(judge, rows))}"
        )
        cut = f"; {facts['cut']} of the {rows} did not fit and were read without their ends"
        yield said + (cut if facts["cut"] else "")


class JudgedLine(TypedDict):
    """What a judge step keeps of a row."""

    key: str
    judge: str
    score: float


def rows_of(store: Store, answers: str, judged: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows of an evaluation, with the scores of steps that judged it.

    `answers` may be such a step itself. Raises KoinizeError for what is broken.
    """
    artifact = store.open(answers)
    if behind := artifact.inputs.get("answers"):
        return rows_of(store, behind, [answers, *judged])
    rows = read_result_rows(artifact)
    for one in judged:
        found = store.open(one)
        name, path = found.facts["metric"], found.path(ROWS)
        lines = cast("list[JudgedLine]", typed_lines(JudgedLine, path, remedy=AGAIN))
        if [line["key"] for line in lines] != [row["key"] for row in rows]:
            raise BrokenError("judged other rows", where=str(found.folder), remedy=AGAIN)
        for row, line in zip(rows, lines, strict=True):
            row[name] = {"judge": line["judge"], "score": line["score"]}
    return rows
