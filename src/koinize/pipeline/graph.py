"""Spec + data -> every step of the project, in an order in which each comes after its needs.

Per task: what is trained (`trainings`), the merges, dev scores of whatever is chosen among, the
choice, and only then (`after`) the test scores of every system. Tasks that share an adapter have
the same merges and the same choice, each under its own name.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from koinize.digest import digest
from koinize.ledger.address import Address, System
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.across import criterion, own_criterion, part_of, sharing
from koinize.pipeline.generation import Elsewhere, Generation
from koinize.pipeline.inputs import Inputs
from koinize.pipeline.judging import Judging
from koinize.pipeline.keeping import Keeping, made_by
from koinize.pipeline.lineage import History
from koinize.pipeline.searching import Search
from koinize.pipeline.seeds import Repetition, chosen_among
from koinize.pipeline.step import Step, Uses
from koinize.pipeline.systems import (
    BASE,
    COMB,
    COMB_CONTINUED,
    INDV,
    MEAN,
    PAPER,
    SINGLE,
    TRUNK,
    candidates,
    distinct,
    only,
    similar,
)
from koinize.pipeline.trainings import Trainings
from koinize.pipeline.tries import waiting
from koinize.settings import differing
from koinize.spec import FROM_THE_BASE, PAPERS_EIGHT, Spec
from koinize.tasks import Task


def graph(
    spec: Spec,
    inputs: Inputs,
    base: str,
    imported: Mapping[tuple[str, str], str],
    history: History,
    trunks: Mapping[str, Elsewhere] | None = None,
    judges: Mapping[str, str] | None = None,
) -> list[Step]:
    """All steps. `base` is the base model's identity; `imported` maps (task, language) to the
    digest of an adapter that was trained elsewhere, `trunks` a task to a trunk from elsewhere,
    and `judges` a metric to the identity of its judge; `history` knows what was trained before.
    """
    judging = Judging(spec, inputs, judges or {})
    steps = [Step(Address("base"), inputs={"base": base}, units=1)]
    tasks = {}
    for name in spec.tasks:
        trunk = (trunks or {}).get(name)
        trainings = Trainings(spec, name, inputs, steps[0], imported, history, trunk)
        tasks[name] = _TaskGraph(spec, name, trainings, judging)
    for names in dict.fromkeys(sharing(spec, name) for name in tasks):
        some = [tasks[name] for name in names]
        for one in some:
            steps.extend(one.trained())
        parts = {part: step for one in some for part, step in one.parts.items()}
        for one in some:
            steps.extend(one.merged(parts))
        scores = {place: score for one in some for place, score in one.scores.items()}
        for one in some:
            steps.extend(one.chosen_and_tested(scores))
        for number in range(1, spec.training.seeds):
            steps.extend(_with_seed(number, some, steps))
    judged = (one for step in steps for one in _with_judges(step, judging))
    steps = list({(one.name, one.id): one for one in judged}.values())
    refuse_two_of_one_name(steps)
    undecided = (one for task in tasks.values() for one in task.trainings.tries.open)
    return list(waiting(steps, undecided))


def _with_judges(step: Step, judging: Judging) -> Iterator[Step]:
    yield step
    if step.kind == "evaluate":
        yield from judging.steps(step)


def _with_seed(number: int, tasks: Iterable[_TaskGraph], steps: Iterable[Step]) -> Iterator[Step]:
    """What these tasks are compared by, with a further seed; `steps` are those before."""
    tasks = list(tasks)
    known = {step.id: step for step in reversed([*steps])}
    trainings = {one.name: one.trainings for one in tasks}
    repetition = Repetition(number, known, trainings, tasks[0].history)
    yield from repetition.of(step for one in tasks for step in one.compared())


def refuse_two_of_one_name(steps: Iterable[Step]) -> None:
    """Raise AssertionError where two steps have one name and different ids.

    Whoever asks for that name would get either, and the store keeps only one under it.
    """
    ids: dict[str, str] = {}
    for step in steps:
        if ids.setdefault(step.name, step.id) != step.id:
            raise AssertionError(f"two steps are called '{step.name}', a fault of koinize")


class _TaskGraph:
    """The steps of one task, in three parts: what is made in each is read in the next, where tasks
    share an adapter by all of them.
    """

    def __init__(self, spec: Spec, name: str, trainings: Trainings, judging: Judging) -> None:
        self.spec, self.name, self.trainings, self.judging = spec, name, trainings, judging
        self.task: Task = spec.tasks[name]
        self.history = trainings.history
        self.search = Search(spec, name, self.history, self._evaluate, judging)
        has_trunk = spec.training.has_trunk
        self.generation = trainings.generation() if has_trunk else None
        self.adapters: dict[str, Step] = {}
        if not has_trunk or FROM_THE_BASE.intersection(spec.baselines):
            self.adapters = {one: trainings.adapter(one) for one in spec.languages}
        self.systems: dict[System, Uses] = {}  # what is scored, and what its evaluations use

    def trained(self) -> Iterator[Step]:
        """Whatever is trained or taken over."""
        if self.generation:
            yield from self.generation.steps()
        yield from self.adapters.values()
        if "base" in self.spec.baselines:
            self.systems[BASE] = Uses()
        yield from self._combined(self.systems, self.generation)
        yield from self.trainings.tries.take()

    @property
    def parts(self) -> dict[str, Step]:
        """What its candidates merge, by the names that they have there."""
        merged = self.generation.branches if self.generation else self.adapters
        return {part_of(self.spec, self.name, one): step for one, step in merged.items()}

    def merged(self, parts: Mapping[str, Step]) -> Iterator[Step]:
        """The candidates, and their scores on dev."""
        self.chosen_among = self._candidates(parts)
        yield from self.search.take()
        self.keeping, self.released = None, self.chosen_among
        if self.spec.merge.update == "keep" and not self.history.choose_again:
            keeping = Keeping(self.history, made_by(parts))
            if before := keeping.as_chosen(self.chosen_among, partial(self._chosen_by, "")):
                chosen = self.history.chosen(Address("select", self.name))
                self.released = {
                    one: fresh if one.title == chosen else before[one]
                    for one, fresh in self.chosen_among.items()
                }
                self.keeping, self.chosen_among = keeping, before
        yield from (one for one in self.released.values() if one.kind == "merge")
        scores = self._dev_scores(self.chosen_among)
        self.scores = {
            (system, part_of(self.spec, self.name, language)): score
            for (system, language), score in scores.items()
        }
        yield from scores.values()

    def chosen_and_tested(self, scores: Mapping[tuple[System, str], Step]) -> Iterator[Step]:
        """The choices on dev, that among the candidates by these scores, and all scores on test."""
        self.choice = self._choice("", self.chosen_among, scores)
        yield self.choice
        after = [self.choice.id]
        for role, system, settings in self._chosen_baselines(self.generation):
            yield from self.search.take()
            merges = {one.system: one for one in self._merges(settings, self.adapters)}
            # The same settings are another merge than one relative to a trunk, or across tasks, or
            # of the adapters of today where this baseline is kept.
            if self.generation or self.name in self.spec.merge.across or self.keeping:
                merges = {system: one.at(role=role) for system, one in merges.items()}
            merges = self._as_chosen(role, merges)
            yield from merges.values()
            after.append((yield from self._best_on_dev(role, system, merges)))
        if "single" in self.spec.baselines:
            # Nothing is made here: what is chosen among are the languages' own adapters.
            alone = {only(one): made.at(role="single") for one, made in self.adapters.items()}
            alone = self._as_chosen("single", alone)
            after.append((yield from self._best_on_dev("single", SINGLE, alone)))
        if self.generation:
            self.systems[TRUNK] = Uses(adapter=self.generation.trunk.id)
        self.systems |= {one: Uses(adapter=made.id) for one, made in self.released.items()}
        self.tests = list(self._tests(self.systems, self.adapters, tuple(after)))
        yield from self.tests

    def compared(self) -> Iterator[Step]:
        """The scores on test that further seeds repeat: of what is released, and of whatever that
        is compared with. They wait while nothing was chosen. And anchors, which are drawn while the
        rows are there.
        """
        if self.generation and self.generation.anchors:
            yield self.generation.anchors
        chosen = chosen_among(self.choice, self.history)
        released = chosen or next(iter(self.released))
        others = (COMB, INDV, SINGLE, MEAN, PAPER)
        for test in self.tests:
            if test.system == released:
                yield replace(test, waits=chosen is None)
            elif test.system in others:
                yield test

    def _as_chosen(self, role: str, among: dict[System, Step]) -> dict[System, Step]:
        """As they were when a baseline was chosen among them, where the recipe is kept."""
        if self.keeping is None:
            return among
        return self.keeping.as_chosen(among, partial(self._chosen_by, role)) or among

    def _chosen_by(self, role: str, among: Mapping[System, Step]) -> tuple[Step, Collection[Step]]:
        """The choice among these by their scores on dev, and the scores."""
        scores = self._dev_scores(among)
        return self._choice(role, among, scores), scores.values()

    def _best_on_dev(
        self, role: str, system: System, among: Mapping[System, Step]
    ) -> Generator[Step, None, str]:
        """The scores and the choice of a baseline that is the best of several; returns its id."""
        own = self._dev_scores(among)
        yield from own.values()
        choice = self._choice(role, among, own)
        yield choice
        self.systems[system] = Uses(choice=choice.id)
        return choice.id

    def _combined(
        self, systems: dict[System, Uses], generation: Generation | None
    ) -> Iterator[Step]:
        """COMB, and COMB trained on; a trunk that is made now is COMB of today as well."""
        if "comb" not in self.spec.baselines:
            return
        fresh = self.trainings.train("comb", self.spec.languages, self.spec.lora.of(""))
        tried = self.trainings.settled(fresh)
        same = generation and generation.trunk.id == tried.id
        comb = tried if same else self.trainings.settled(self.history.comb(fresh))
        yield comb
        systems[COMB] = Uses(adapter=comb.id)
        if "comb-continued" in self.spec.baselines:
            continued = self.history.comb_continued(fresh, comb)
            if continued is not None:  # otherwise it is COMB
                continued = self.trainings.settled(continued)
                yield continued
                systems[COMB_CONTINUED] = Uses(adapter=continued.id)

    def _candidates(self, parts: Mapping[str, Step]) -> dict[System, Step]:
        """What the release is chosen among: merges; or the trunk, while nothing left it."""
        generation = self.generation
        if generation and not generation.branches:
            return {TRUNK: generation.trunk}
        stated = candidates(self.spec, generation.branches if generation else None, self.name)
        trunk = generation.trunk if generation else None
        found = self.search.candidates(stated, lambda some: self._merges(some, parts, trunk))
        return {merge.system: merge for merge in self._merges(found, parts, trunk)}

    def _chosen_baselines(
        self, generation: Generation | None
    ) -> Iterator[tuple[str, System, Iterable[MergeSettings]]]:
        """Baselines that are the best of several merges: the role of their choice, and which."""
        if "mean" in self.spec.baselines:
            found = self.search.means(lambda some: self._merges(some, self.adapters))
            yield "mean", MEAN, found
        if generation and "paper" in self.spec.baselines:
            yield "paper", PAPER, [MergeSettings.model_validate(one) for one in PAPERS_EIGHT]

    def _tests(
        self, systems: Mapping[System, Uses], adapters: Mapping[str, Step], after: tuple[str, ...]
    ) -> Iterator[Step]:
        languages = self.spec.languages
        for system, uses in systems.items():
            for language in languages:
                yield self._evaluate(system, language, "test", uses, after)
        for owner, adapter in adapters.items():
            uses = Uses(adapter=adapter.id)
            for language in languages:
                if owner == language and "indv" in self.spec.baselines:
                    yield self._evaluate(INDV, language, "test", uses, after)
                elif owner != language and "cross" in self.spec.baselines:
                    score = self._evaluate(only(owner), language, "test", uses, after)
                    yield self.keeping.last_score(score) if self.keeping else score

    def _merges(
        self,
        wanted: Iterable[MergeSettings],
        adapters: Mapping[str, Step],
        trunk: Step | None = None,
    ) -> Iterator[Step]:
        for system, (settings, *_) in distinct(wanted).items():
            yield Step(
                Address("merge", self.name, system),
                inputs={"recipe": system.key},
                uses=Uses(
                    adapters={language: one.id for language, one in adapters.items()},
                    trunk=trunk.id if trunk else "",
                ),
                units=1,
                sort=similar(settings),
                languages=tuple(adapters),
                merge=settings,
            )

    def _dev_scores(self, merges: Mapping[System, Step]) -> dict[tuple[System, str], Step]:
        """The evaluations of these merges on dev, by system and language.

        One alone is chosen unseen: its score on dev would decide nothing.
        """
        rivals = merges if len(merges) > 1 else {}
        return {
            (system, language): self._evaluate(system, language, "dev", Uses(adapter=merge.id)).at(
                role=merge.address.role
            )
            for system, merge in rivals.items()
            for language in self.spec.languages
        }

    def _choice(
        self,
        role: str,
        merges: Mapping[System, Step],
        scores: Mapping[tuple[System, str], Step],
    ) -> Step:
        """The step that chooses among these merges by these scores."""
        decisive = own_criterion if role else criterion
        return Step(
            Address("select", self.name, role=role),
            inputs={"metric": digest(decisive(self.spec, self.name))},
            uses=Uses(
                scores=self.judging.read_by_choices(scores),
                candidates={system: merge.id for system, merge in merges.items()},
            ),
            units=1,
            sort=self.name,
            languages=self.spec.languages,
            settings={"adapters": made_by(self.parts)},
            waits=self.search.goes_on,
        )

    def _evaluate(
        self, system: System, language: str, split: str, uses: Uses, after: tuple[str, ...] = ()
    ) -> Step:
        facts = self.trainings.split(language, split)
        settings = self.task.evaluation(self.spec.evaluation, split)
        evaluation = differing(settings)
        step = Step(
            Address("evaluate", self.name, system, language, split),
            inputs={
                "base": self.trainings.base,
                **self.trainings.encoded(),
                "evaluation": digest(evaluation),
                f"{split} rows {language}": facts.digest,
            },
            uses=uses,
            after=(self.trainings.ready, *after),
            rows={f"{split} rows {language}": facts.rows},
            # A prompt that is also written after passes the model once more, and slower.
            units=2 * facts.bytes if settings.free else facts.bytes,
            sort=f"{self.name} free" if settings.free else self.name,
            settings={
                **self.trainings.encoding_settings(),
                **self.trainings.worded(language),
                "evaluation": evaluation,
            },
            languages=(language,),
        )
        # What koinize 0.1 counted among what identifies: kept where it is all that is there.
        return self.history.as_made(step, {"evaluation": digest(differing(settings, ()))})
