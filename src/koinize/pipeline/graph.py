"""Spec + data -> every step of the project, in an order in which each comes after its needs.

Per task: one adapter per language and COMB on all of them, the merges, dev scores of whatever is
chosen among, the choice, and only then (`after`) the test scores of every system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from koinize.digest import digest
from koinize.ledger.address import Address, System
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.inputs import Inputs, SplitFacts
from koinize.pipeline.lineage import History
from koinize.pipeline.step import Step, Uses
from koinize.settings import MEMORY_ONLY, LoraSpec, differing
from koinize.spec import Spec
from koinize.tasks import Task

BASE, INDV, COMB, COMB_CONTINUED, MEAN = map(
    System.named, ("BASE", "INDV", "COMB", "COMB-CONTINUED", "MEAN")
)


def graph(
    spec: Spec,
    inputs: Inputs,
    base: str,
    imported: Mapping[tuple[str, str], str],
    history: History,
) -> list[Step]:
    """All steps. `base` is the base model's identity; `imported` maps (task, language) to the
    digest of an adapter that was trained elsewhere; `history` knows what was trained before.
    """
    steps = [Step(Address("base"), inputs={"base": base}, units=1)]
    for name in spec.tasks:
        steps.extend(_TaskGraph(spec, name, inputs, steps[0], imported, history).steps())
    return steps


def only(language: str) -> System:
    """The system in which this language's adapter serves every language."""
    return System.named(f"{language} only")


def system_of(settings: MergeSettings) -> System:
    """The system that a merge is: equal for settings that define the same merge, since at density 1
    nothing is trimmed or drawn.
    """
    return System(digest(settings.identity()), settings.describe())


def distinct(candidates: Iterable[MergeSettings]) -> dict[System, tuple[MergeSettings, ...]]:
    """Each merge once, with all the settings that define it, the first of which name it."""
    found: dict[System, tuple[MergeSettings, ...]] = {}
    for one in candidates:
        system = system_of(one)
        found[system] = (*found.get(system, ()), one)
    return found


def similar(settings: MergeSettings) -> str:
    """What a merge's time is learnt from: recipes, spaces and dialects differ a hundredfold."""
    given = settings.given()
    return " ".join(
        [settings.recipe, *(given[one] for one in ("space", "dialect") if one in given)]
    )


class _TaskGraph:
    """The steps of one task."""

    def __init__(
        self,
        spec: Spec,
        name: str,
        inputs: Inputs,
        base: Step,
        imported: Mapping[tuple[str, str], str],
        history: History,
    ) -> None:
        self.spec, self.name, self.inputs = spec, name, inputs
        self.base, self.ready = base.inputs["base"], base.id
        self.task: Task = spec.tasks[name]
        evaluation = self.task.evaluation(spec.evaluation)
        self.evaluation = differing(evaluation)
        # What koinize 0.1 counted among what identifies: kept where it is all that is there.
        self.former_evaluation = digest(differing(evaluation, ()))
        self.former_training = digest(differing(spec.training, {"update"}))
        self.imported, self.history = imported, history

    def steps(self) -> Iterator[Step]:
        adapters = {language: self._adapter(language) for language in self.spec.languages}
        yield from adapters.values()
        systems: dict[System, Uses] = {}  # what is scored, and what its evaluations use
        if "base" in self.spec.baselines:
            systems[BASE] = Uses()
        if "comb" in self.spec.baselines:
            fresh = self._train("comb", self.spec.languages, self.spec.lora.of(""))
            comb = self.history.comb(fresh)
            yield comb
            systems[COMB] = Uses(adapter=comb.id)
            if "comb-continued" in self.spec.baselines:
                continued = self.history.comb_continued(fresh, comb)
                if continued is not None:  # otherwise it is COMB
                    yield continued
                    systems[COMB_CONTINUED] = Uses(adapter=continued.id)
        candidates = {}
        for merge in self._merges(self.spec.merge.settings, adapters):
            yield merge
            candidates[merge.system] = merge
        choice, steps = self._choose("", candidates)
        yield from steps
        after = [choice.id]
        if "mean" in self.spec.baselines:
            means = {one.system: one for one in self._merges(self._means(), adapters)}
            yield from means.values()
            mean, steps = self._choose("mean", means)
            yield from steps
            systems[MEAN] = Uses(choice=mean.id)
            after.append(mean.id)
        systems |= {system: Uses(adapter=merge.id) for system, merge in candidates.items()}
        yield from self._tests(systems, adapters, tuple(after))

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
                    yield self._evaluate(only(owner), language, "test", uses, after)

    def _means(self) -> list[MergeSettings]:
        return [MergeSettings(recipe="mean", scale=scale) for scale in self.spec.merge.mean_scales]

    def _split(self, language: str, split: str) -> SplitFacts:
        return self.inputs.splits[self.name, language, split]

    def _adapter(self, language: str) -> Step:
        if (self.name, language) in self.imported:
            return Step(
                Address("import", self.name, language=language),
                inputs={"adapter files": self.imported[self.name, language], "base": self.base},
                languages=(language,),
                sort=self.name,
            )
        fresh = self._train("", (language,), self.spec.lora.of(language))
        return self.history.adapter(fresh)

    def _train(self, role: str, languages: tuple[str, ...], lora: LoraSpec) -> Step:
        """One language's training, or one of all languages in some role."""
        splits = {f"train rows {one}": self._split(one, "train") for one in languages}
        if self.spec.training.patience is not None:  # only then does dev have a say
            splits |= {f"dev rows {one}": self._split(one, "dev") for one in languages}
        training = self.spec.training
        step = Step(
            Address("train", self.name, language="" if role else languages[0], role=role),
            inputs={
                "base": self.base,
                "lora": digest(differing(lora)),
                "training": training.identity,
                **{label: split.digest for label, split in splits.items()},
            },
            after=(self.ready,),
            rows={label: split.rows for label, split in splits.items()},
            units=sum(self._split(one, "train").bytes for one in languages) * training.epochs,
            sort=self.name,
            languages=languages,
            settings={
                "lora": differing(lora),
                "training": differing(training, {"update", *MEMORY_ONLY}),
            },
        )
        return self.history.as_made(step, {"training": self.former_training})

    def _merges(
        self, candidates: Iterable[MergeSettings], adapters: Mapping[str, Step]
    ) -> Iterator[Step]:
        for system, (settings, *_) in distinct(candidates).items():
            yield Step(
                Address("merge", self.name, system),
                inputs={"recipe": system.key},
                uses=Uses(adapters={language: one.id for language, one in adapters.items()}),
                units=1,
                sort=similar(settings),
                languages=self.spec.languages,
                merge=settings,
            )

    def _choose(self, role: str, merges: Mapping[System, Step]) -> tuple[Step, list[Step]]:
        """The dev evaluations of these merges, and the step that chooses by them.

        One alone is chosen unseen: its score on dev would decide nothing.
        """
        rivals = merges if len(merges) > 1 else {}
        evaluations = {
            (system, language): self._evaluate(system, language, "dev", Uses(adapter=merge.id))
            for system, merge in rivals.items()
            for language in self.spec.languages
        }
        choice = Step(
            Address("select", self.name, role=role),
            inputs={"metric": digest([self.task.metrics[0], list(self.task.label_set)])},
            uses=Uses(
                scores={place: one.id for place, one in evaluations.items()},
                candidates={system: merge.id for system, merge in merges.items()},
            ),
            units=1,
            sort=self.name,
            languages=self.spec.languages,
        )
        return choice, [*evaluations.values(), choice]

    def _evaluate(
        self, system: System, language: str, split: str, uses: Uses, after: tuple[str, ...] = ()
    ) -> Step:
        facts = self._split(language, split)
        step = Step(
            Address("evaluate", self.name, system, language, split),
            inputs={
                "base": self.base,
                "evaluation": digest(self.evaluation),
                f"{split} rows {language}": facts.digest,
            },
            uses=uses,
            after=(self.ready, *after),
            rows={f"{split} rows {language}": facts.rows},
            units=facts.bytes,
            sort=self.name,
            settings={"evaluation": self.evaluation},
            languages=(language,),
        )
        return self.history.as_made(step, {"evaluation": self.former_evaluation})
