"""What if a language were left out, or weighed otherwise? Answered on dev, without any training.

The adapters that are there are merged with other settings, and the merge is scored as candidates
are. These steps go through the store, the ledger and `run` like all others, so a question asked
again costs nothing, and a later `language remove` finds its merge made. Their names begin with
`whatif/`: no plan of the project lists them, and no name keeps them from `koinize gc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from koinize.digest import digest
from koinize.errors import InputError, did_you_mean
from koinize.gate import Verdict, compare
from koinize.ledger.address import WHATIF, System
from koinize.merge.recipe import MergeSettings, merge_settings
from koinize.metrics import Metric, ResultRow, Score
from koinize.pipeline.across import language_of
from koinize.pipeline.project import Project
from koinize.pipeline.results import DEV, TEST, Results, refuse_missing, value
from koinize.pipeline.step import Step, Uses
from koinize.pipeline.systems import among, distinct, system_of
from koinize.report.quality import mean_score


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
class Inquiry:
    """Questions about one candidate of a task, `subject`, compared with the `chosen` one.

    `steps` are what the answers need: the project plans and runs them; then `answers` reads them.
    """

    results: Results
    subject: System
    chosen: System
    reference: Mapping[str, Step]
    variants: tuple[Variant, ...]
    steps: tuple[Step, ...]

    @property
    def metric(self) -> Metric:
        """The metric that chooses between merges."""
        return self.results.metric

    def answers(self) -> list[Answer]:
        """One for each variant, in their order. Raises KoinizeError for a broken artifact."""
        before = {language: self.results.rows(step) for language, step in self.reference.items()}
        return [self._answer(one, before) for one in self.variants]

    def _answer(self, variant: Variant, before: Mapping[str, Sequence[ResultRow]]) -> Answer:
        metric, margin = self.metric, self.results.margins[self.metric.name]
        effects = []
        for language, step in variant.evaluations.items():
            rows = self.results.rows(step)
            change = compare(rows, before[language], metric, margin)
            scores = value(metric, before[language]), value(metric, rows)
            left_out = language in variant.question.without
            effects.append(Effect(language, left_out, *scores, change))
        return Answer(variant, tuple(effects), _mean(one for one in effects if not one.left_out))


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
    results = Results(project, task)
    _refuse_missing(results, [results.choice()])
    chosen = results.chosen()
    if results.is_kept:
        raise InputError(
            f"the recipe of '{task}' was kept, so its merge of today was not scored on dev",
            remedy="run `koinize run --choose-again` first",
        )
    if chosen not in results.merges:
        raise InputError(
            f"task '{task}' has no merge to ask about: its trunk is whole, no language left it",
            remedy="ask again when a language has changed and `koinize run` has merged it",
        )
    subject = _candidate(results, recipe) if recipe else chosen
    reference = _evaluations(results, chosen)
    merge = results.merges[subject]
    for question in asked:
        _check_branches(question, merge)
    unscored = [one for one in reference.values() if one.asked]
    scored = [one for one in reference.values() if not one.asked]
    _refuse_missing(results, [*scored, merge, *_made_of(merge, project.steps)])
    variants = [_variant(merge, reference, one) for one in asked]
    if subject != chosen:
        present = _evaluations(results, subject)
        _refuse_missing(results, present.values())
        variants.insert(0, Variant(Question(), merge, present))
    new = {step.id: step for one in variants for step in (one.merge, *one.evaluations.values())}
    new |= {step.id: step for step in unscored}
    new |= {step.id: step for step in results.judged(new.values())}
    steps = (project.steps[0], *new.values())
    return Inquiry(results, subject, chosen, reference, tuple(variants), steps)


def merged_languages(project: Project, task: str) -> tuple[str, ...]:
    """The languages whose adapters the merges of this task are made of: all, or the branches."""
    merges = Results(project, task).merges.values()
    return next((one.languages for one in merges if one.uses.trunk), project.spec.languages)


def leave_one_out(languages: Sequence[str]) -> list[Question]:
    """Each language left out in turn. Raises InputError where only one is merged."""
    if len(languages) < 2:
        raise InputError(f"only '{languages[0]}' is merged, so it cannot be left out")
    return [Question(without=(one,)) for one in languages]


def changed(settings: MergeSettings, question: Question, kept: Sequence[str]) -> MergeSettings:
    """The settings of the merge that a question asks for; nothing in them names who is left out."""
    asked = {one: language_of(one) for one in kept if language_of(one) in question.weights}
    weights = {**settings.weights, **{one: question.weights[asked[one]] for one in asked}}
    weights = {name: one for name, one in weights.items() if one != 1}
    return among(merge_settings(**{**settings.given(), "weights": weights}), kept)


def _check(question: Question, languages: Sequence[str]) -> None:
    for name in (*question.without, *question.weights):
        if name not in languages:
            raise InputError(f"unknown language '{name}'", remedy=did_you_mean(name, languages))
    for name in question.weights:
        if name in question.without:
            raise InputError(f"'{name}' is left out, so it has no weight")
    if set(languages) == set(question.without):
        raise InputError("every language is left out, so there is nothing to merge")


def _check_branches(question: Question, merge: Step) -> None:
    """Of a generation, only what left the trunk can be left out, and something has to stay."""
    if not merge.uses.trunk:
        return
    for name in (*question.without, *question.weights):
        if name not in merge.languages:
            raise InputError(
                f"'{name}' did not leave the trunk, so the merge has nothing of its own from it",
                expected=f"one of the branches: {', '.join(merge.languages)}",
            )
    if set(merge.languages) == set(question.without):
        raise InputError(
            "without its branches the merge is its trunk",
            remedy="the system TRUNK in `koinize report` is just that",
        )


def _candidate(results: Results, recipe: str) -> System:
    """The candidate of this name, or the only one of this recipe."""
    named: dict[str, System] = {}
    alike: set[System] = set()
    for system, settings in distinct(results.candidates).items():
        named |= {one.describe(): system for one in settings}
        alike |= {system for one in settings if one.recipe == recipe}
    if recipe in named:
        return named[recipe]
    if len(alike) > 1:
        what = f"{len(alike)} candidates have the recipe '{recipe}'"
        titles = sorted(one.title for one in alike)
        raise InputError(what, expected=f"one of: {', '.join(titles)}")
    if not alike:
        what = f"there is no candidate '{recipe}'"
        raise InputError(what, remedy=did_you_mean(recipe, named))
    return alike.pop()


def _evaluations(results: Results, system: System) -> dict[str, Step]:
    """By language; those of a candidate without a rival are no steps of the project."""
    scored = results.of_split(system, DEV)
    tests = results.of_split(system, TEST)
    return {
        language: scored.get(language) or _on_dev(results.project, tests[language])
        for language in results.project.spec.languages
    }


def _on_dev(project: Project, test: Step) -> Step:
    """The evaluation of the same merge on the dev rows of the same language."""
    facts = project.inputs.splits[test.task, test.language, DEV]
    label = f"{DEV} rows {test.language}"
    return replace(
        test.at(split=DEV, role=WHATIF),
        inputs={
            **{what: one for what, one in test.inputs.items() if what not in test.rows},
            label: facts.digest,
        },
        after=test.after[:1],
        rows={label: facts.rows},
        units=facts.bytes,
    )


def _made_of(merge: Step, steps: Iterable[Step]) -> Iterator[Step]:
    adapters = set(merge.uses.adapters.values())
    return (step for step in steps if step.id in adapters)


def _refuse_missing(results: Results, needed: Iterable[Step]) -> None:
    refuse_missing(results.project, needed, f"task '{results.task}' has no merge to ask about")


def _variant(merge: Step, reference: Mapping[str, Step], question: Question) -> Variant:
    if merge.merge is None:
        raise TypeError(f"{merge.name} is no merge")
    kept = tuple(one for one in merge.languages if language_of(one) not in question.without)
    settings = changed(merge.merge, question, kept)
    key = system_of(settings).key
    system = System(digest([key, list(kept)]), f"{merge.system.title}, {question.name}")
    adapters = {language: merge.uses.adapters[language] for language in kept}
    made = replace(
        merge.at(system=system, role=WHATIF),
        inputs={**merge.inputs, "recipe": key},
        uses=replace(merge.uses, adapters=adapters),
        languages=kept,
        merge=settings,
    )
    evaluations = {
        language: replace(step.at(system=system, role=WHATIF), uses=Uses(adapter=made.id))
        for language, step in reference.items()
    }
    return Variant(question, made, evaluations)


def _mean(effects: Iterable[Effect]) -> Score:
    """The plain mean of the differences, with the interval that theirs imply."""
    return mean_score(
        [
            Score(one.change.difference, one.change.low, one.change.high, one.change.n, "")
            for one in effects
        ]
    )
