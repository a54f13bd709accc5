"""What if a language were left out, or weighed otherwise? Answered on dev, without any training.

The adapters that are there are merged with other settings, and the merge is scored as candidates
are. These steps go through the store, the ledger and `run` like all others, so a question asked
again costs nothing, and a later `language remove` finds its merge made. Their names begin with
`whatif/`: no plan of the project lists them, and no name keeps them from `koinize gc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from koinize.errors import InputError, did_you_mean
from koinize.gate import Verdict, compare
from koinize.merge.recipe import MergeSettings, merge_settings
from koinize.metrics import Metric, ResultRow, Score, metrics
from koinize.pipeline.graph import canonical, distinct, labels_of
from koinize.pipeline.outcome import MARGINS
from koinize.pipeline.project import Project
from koinize.pipeline.step import WHATIF, Step
from koinize.pipeline.work import read_result_rows
from koinize.report.quality import mean_score
from koinize.tasks import Task

SPLIT = "dev"


@dataclass(frozen=True)
class Question:
    """How a merge would differ: languages that are left out, and other weights."""

    without: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as `without ja, en=2`."""
        parts = [f"without {one}" for one in self.without]
        parts += [f"{language}={weight:g}" for language, weight in sorted(self.weights.items())]
        return ", ".join(parts) or "as it is"


@dataclass(frozen=True)
class Variant:
    """The merge that a question asks for, and its evaluation in every language."""

    question: Question
    merge: Step
    evaluations: Mapping[str, Step]


@dataclass(frozen=True)
class Effect:
    """One language: the score of the chosen merge, that of the variant, and their difference."""

    language: str
    left_out: bool
    before: float
    after: float
    change: Verdict


@dataclass(frozen=True)
class Answer:
    """A variant's effects, and their mean over the languages that stay in the merge."""

    variant: Variant
    effects: tuple[Effect, ...]
    mean: Score


@dataclass(frozen=True)
class _Asked(Project):
    """The project with nothing to do but to answer."""

    asked: tuple[Step, ...] = ()

    @cached_property
    def steps(self) -> list[Step]:
        """The merges and evaluations that are asked for."""
        return list(self.asked)


@dataclass(frozen=True)
class Inquiry:
    """Questions about one candidate of a task, `subject`, compared with the `chosen` one.

    `project` plans and runs what the answers need; then `answers` reads them.
    """

    project: Project
    task: str
    subject: str
    chosen: str
    reference: Mapping[str, Step]
    variants: tuple[Variant, ...]

    @property
    def metric(self) -> Metric:
        """The metric that chooses between merges."""
        task = self._definition
        return metrics.get(task.metrics[0]).over(labels_of(task))

    @property
    def _definition(self) -> Task:
        return self.project.spec.tasks[self.task]

    def answers(self) -> list[Answer]:
        """One for each variant, in their order. Raises KoinizeError for a broken artifact."""
        before = {language: self._rows(step) for language, step in self.reference.items()}
        return [self._answer(one, before) for one in self.variants]

    def _answer(self, variant: Variant, before: Mapping[str, Sequence[ResultRow]]) -> Answer:
        metric, margin = self.metric, self._margin
        effects = []
        for language, step in variant.evaluations.items():
            rows = self._rows(step)
            change = compare(rows, before[language], metric, margin)
            score, other = _value(metric, before[language]), _value(metric, rows)
            left_out = language in variant.question.without
            effects.append(Effect(language, left_out, score, other, change))
        return Answer(variant, tuple(effects), _mean(one for one in effects if not one.left_out))

    @property
    def _margin(self) -> float:
        margins = {**MARGINS, **self.project.spec.margins, **self._definition.margins}
        return margins[self._definition.metrics[0]]

    def _rows(self, step: Step) -> list[ResultRow]:
        return list(read_result_rows(self.project.store.open(step.id)))


def inquire(
    project: Project, task: str, questions: Iterable[Question], recipe: str | None = None
) -> Inquiry:
    """Questions about the merge that was chosen, or about the candidate that `recipe` names.

    That candidate is then also compared as it is, so that one sees what the change itself does.
    Raises InputError for an unknown language or candidate, for a question that leaves nothing to
    merge, and while the adapters or the choice on dev are missing.
    """
    asked = list(questions)
    for question in asked:
        _check(question, project.spec.languages)
    steps = {step.name: step for step in project.steps}
    chosen = _chosen(project, task, steps)
    subject = _candidate(project, recipe) if recipe else chosen
    reference = _evaluations(project, task, chosen, steps)
    merge = steps[f"merge/{task}/{subject}"]
    unscored = [one for one in reference.values() if one.name.startswith(WHATIF)]
    scored = [one for one in reference.values() if one not in unscored]
    _refuse_missing(project, task, [*scored, merge, *_made_of(merge, project.steps)])
    variants = [_variant(merge, reference, one) for one in asked]
    if subject != chosen:
        present = _evaluations(project, task, subject, steps)
        _refuse_missing(project, task, present.values())
        variants.insert(0, Variant(Question(), merge, present))
    new = {step.id: step for one in variants for step in (one.merge, *one.evaluations.values())}
    new |= {step.id: step for step in unscored}
    base = project.steps[0]
    answering = _Asked(project.file, project.spec, asked=(base, *new.values()))
    return Inquiry(answering, task, subject, chosen, reference, tuple(variants))


def leave_one_out(languages: Sequence[str]) -> list[Question]:
    """Each language left out in turn. Raises InputError where there is only one."""
    if len(languages) < 2:
        raise InputError("the project has one language, so none can be left out")
    return [Question(without=(one,)) for one in languages]


def changed(settings: MergeSettings, question: Question, kept: Sequence[str]) -> MergeSettings:
    """The settings of the merge that a question asks for; nothing in them names who is left out."""
    overrides = {}
    for pattern, options in settings.overrides.items():
        weights = {name: one for name, one in options.get("weights", {}).items() if name in kept}
        others = {name: value for name, value in options.items() if name != "weights"}
        if weights or others:
            overrides[pattern] = {**others, **({"weights": weights} if weights else {})}
    weights = {**settings.weights, **question.weights}
    return merge_settings(
        **{
            **settings.given(),
            "weights": {name: one for name, one in weights.items() if name in kept and one != 1},
            "overrides": overrides,
        }
    )


def _check(question: Question, languages: Sequence[str]) -> None:
    for name in (*question.without, *question.weights):
        if name not in languages:
            raise InputError(f"unknown language '{name}'", remedy=did_you_mean(name, languages))
    for name in question.weights:
        if name in question.without:
            raise InputError(f"'{name}' is left out, so it has no weight")
    if set(languages) == set(question.without):
        raise InputError("every language is left out, so there is nothing to merge")


def _chosen(project: Project, task: str, steps: Mapping[str, Step]) -> str:
    choice = steps[f"select/{task}"]
    _refuse_missing(project, task, [choice])
    name: str = project.store.open(choice.id).facts["chosen"]
    return name


def _candidate(project: Project, recipe: str) -> str:
    """The candidate of this name, or the only one of this recipe."""
    candidates = distinct(project.spec.merge.settings)
    if recipe in candidates:
        return candidates[recipe].describe()
    alike = {one.describe() for one in candidates.values() if one.recipe == recipe}
    if len(alike) > 1:
        what = f"{len(alike)} candidates have the recipe '{recipe}'"
        raise InputError(what, expected=f"one of: {', '.join(sorted(alike))}")
    if not alike:
        what = f"there is no candidate '{recipe}'"
        raise InputError(what, remedy=did_you_mean(recipe, candidates))
    return alike.pop()


def _evaluations(
    project: Project, task: str, system: str, steps: Mapping[str, Step]
) -> dict[str, Step]:
    """By language; those of a candidate without a rival are no steps of the project."""
    found = {}
    for language in project.spec.languages:
        name = f"evaluate/{task}/{system}/{language}/{SPLIT}"
        if name not in steps:
            test = steps[f"evaluate/{task}/{system}/{language}/test"]
            found[language] = _on_dev(project, test, f"{WHATIF}{name}")
        else:
            found[language] = steps[name]
    return found


def _on_dev(project: Project, test: Step, name: str) -> Step:
    """The evaluation of the same merge on the dev rows of the same language."""
    (language,) = test.languages
    facts = project.inputs.splits[test.task, language, SPLIT]
    label = f"{SPLIT} rows {language}"
    return replace(
        test,
        name=name,
        inputs={
            **{what: one for what, one in test.inputs.items() if what not in test.rows},
            label: facts.digest,
        },
        after=test.after[:1],
        rows={label: facts.rows},
        units=facts.bytes,
        split=SPLIT,
    )


def _made_of(merge: Step, steps: Iterable[Step]) -> Iterator[Step]:
    adapters = set(merge.uses.values())
    return (step for step in steps if step.id in adapters)


def _refuse_missing(project: Project, task: str, needed: Iterable[Step]) -> None:
    present = project.store.ids()
    for step in needed:
        if step.id not in present:
            raise InputError(
                f"task '{task}' has no merge to ask about: '{step.name}' is missing",
                remedy="run `koinize run` first",
            )


def _variant(merge: Step, reference: Mapping[str, Step], question: Question) -> Variant:
    if merge.merge is None:
        raise TypeError(f"{merge.name} is no merge")
    kept = tuple(one for one in merge.languages if one not in question.without)
    settings = changed(merge.merge, question, kept)
    system = f"{merge.system}, {question.name}"
    made = replace(
        merge,
        name=f"{WHATIF}merge/{merge.task}/{system}",
        inputs={**merge.inputs, "recipe": canonical(settings)},
        uses={language: merge.uses[language] for language in kept},
        system=system,
        languages=kept,
        merge=settings,
    )
    evaluations = {
        language: replace(
            step,
            name=f"{WHATIF}evaluate/{merge.task}/{system}/{language}/{SPLIT}",
            uses={"adapter": made.id},
            system=system,
        )
        for language, step in reference.items()
    }
    return Variant(question, made, evaluations)


def _value(metric: Metric, rows: Sequence[ResultRow]) -> float:
    return float(metric.aggregate(metric.statistics(rows).sum(axis=0)))


def _mean(effects: Iterable[Effect]) -> Score:
    """The plain mean of the differences, with the interval that theirs imply."""
    return mean_score(
        [
            Score(one.change.difference, one.change.low, one.change.high, one.change.n, "")
            for one in effects
        ]
    )
