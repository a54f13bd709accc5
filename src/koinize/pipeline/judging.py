"""Metrics that need a model: which steps judge answers, and the rows with what was found.

A `judge` step reads the answers of one evaluation and keeps one score for each row, under what
decides it: the metric's version, its model's digest, and the settings (decision 023).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict

from koinize.errors import BrokenError, InputError
from koinize.ledger.address import System
from koinize.metrics import JudgedMetric, metrics
from koinize.model import base
from koinize.model.judge import config_of
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
    judges: Mapping[str, str] = field(default_factory=dict)

    def steps(self, evaluation: Step) -> Iterator[Step]:
        """Those that judge these answers: by all of the task's metrics that need a model where the
        answers are reported, else by the one that decides a choice.
        """
        task = evaluation.task
        decides = self.spec.tasks[task].metrics[0]
        for name in asked(self.spec, task):
            if name == decides or not evaluation.address.role:
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

    def _step(self, evaluation: Step, name: str) -> Step:
        about = evaluation.address
        return Step(
            replace(about, kind="judge", metric=name),
            inputs={"judge": self.judges[name]},
            uses=Uses(answers=evaluation.id),
            units=evaluation.units,
            sort=f"{about.task} {name}",
            languages=evaluation.languages,
            settings={"judge": differing(self.spec.judges[name])},
            waits=evaluation.waits,
        )


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
