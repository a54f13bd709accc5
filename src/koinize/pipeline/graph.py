"""Spec + data -> every step of the project, in an order in which each comes after its needs.

Per task: one adapter per language and COMB on all of them, the merges, dev scores of whatever is
chosen among, the choice, and only then (`after`) the test scores of every system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from koinize.digest import digest
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.inputs import Inputs, SplitFacts
from koinize.pipeline.step import Step
from koinize.pipeline.update import History
from koinize.settings import EvaluationSpec, LoraSpec
from koinize.spec import Spec
from koinize.tasks import Task

COMB, BASE, INDV, MEAN = "COMB", "BASE", "INDV", "MEAN"
COMB_CONTINUED = "COMB-CONTINUED"


def graph(
    spec: Spec,
    inputs: Inputs,
    base: str,
    imported: dict[tuple[str, str], str],
    history: History,
) -> list[Step]:
    """All steps. `base` is the base model's identity; `imported` maps (task, language) to the
    digest of an adapter that was trained elsewhere; `history` knows what was trained before.
    """
    steps = [Step(kind="base", name="base", inputs={"base": base}, units=1)]
    for name in spec.tasks:
        steps.extend(_TaskGraph(spec, name, inputs, steps[0], imported, history).steps())
    return steps


def only(language: str) -> str:
    """The system in which this language's adapter serves every language."""
    return f"{language} only"


def canonical(settings: MergeSettings) -> str:
    """Equal for settings that define the same merge: at density 1 nothing is trimmed or drawn."""
    return digest(settings.identity())


def distinct(candidates: Iterable[MergeSettings]) -> dict[str, MergeSettings]:
    """Every candidate's name -> the first candidate that defines the same merge."""
    first: dict[str, MergeSettings] = {}
    return {one.describe(): first.setdefault(canonical(one), one) for one in candidates}


def labels_of(task: Task) -> tuple[str, ...]:
    """The fixed label set that a metric counts over; empty where a task has none."""
    labels: tuple[str, ...] = getattr(task, "labels", ())
    return labels


def evaluation_of(spec: Spec, task: Task) -> EvaluationSpec:
    """The project's evaluation settings, with how a task that generates wants to be answered."""
    own = {name: getattr(task, name) for name in ("max_new_tokens", "stop") if hasattr(task, name)}
    return EvaluationSpec(**spec.evaluation.model_dump(), **own)


class _TaskGraph:
    """The steps of one task."""

    def __init__(
        self,
        spec: Spec,
        name: str,
        inputs: Inputs,
        base: Step,
        imported: dict[tuple[str, str], str],
        history: History,
    ) -> None:
        self.spec, self.name, self.inputs = spec, name, inputs
        self.base, self.ready = base.inputs["base"], base.id
        self.task: Task = spec.tasks[name]
        self.evaluation = _differing(evaluation_of(spec, self.task))
        self.imported, self.history = imported, history

    def steps(self) -> Iterator[Step]:
        adapters = {language: self._adapter(language) for language in self.spec.languages}
        yield from adapters.values()
        systems: dict[str, dict[str, str]] = {}  # system -> what its evaluation uses
        if "base" in self.spec.baselines:
            systems[BASE] = {}
        if "comb" in self.spec.baselines:
            fresh = self._train("comb", self.spec.languages, self.spec.lora.of(""))
            comb = self.history.comb(fresh)
            yield comb
            systems[COMB] = {"adapter": comb.id}
            if "comb-continued" in self.spec.baselines:
                continued = self.history.comb_continued(fresh, comb)
                if continued is not None:  # otherwise it is COMB
                    yield continued
                    systems[COMB_CONTINUED] = {"adapter": continued.id}
        chosen_among = {}
        for merge in self._merges(distinct(self.spec.merge.settings).values(), adapters):
            yield merge
            chosen_among[merge.system] = merge
        choice, steps = self._choose("", chosen_among)
        yield from steps
        after = [choice.id]
        if "mean" in self.spec.baselines:
            means = {one.system: one for one in self._merges(self._means(), adapters)}
            yield from means.values()
            mean, steps = self._choose("/mean", means)
            yield from steps
            systems[MEAN] = {"choice": mean.id}
            after.append(mean.id)
        systems |= {system: {"adapter": merge.id} for system, merge in chosen_among.items()}
        yield from self._tests(systems, adapters, tuple(after))

    def _tests(
        self, systems: dict[str, dict[str, str]], adapters: dict[str, Step], after: tuple[str, ...]
    ) -> Iterator[Step]:
        languages = self.spec.languages
        for system, uses in systems.items():
            for language in languages:
                yield self._evaluate(system, language, "test", uses, after)
        for owner, adapter in adapters.items():
            for language in languages:
                if owner == language and "indv" in self.spec.baselines:
                    yield self._evaluate(INDV, language, "test", {"adapter": adapter.id}, after)
                elif owner != language and "cross" in self.spec.baselines:
                    uses = {"adapter": adapter.id}
                    yield self._evaluate(only(owner), language, "test", uses, after)

    def _means(self) -> list[MergeSettings]:
        return [MergeSettings(recipe="mean", scale=scale) for scale in self.spec.merge.mean_scales]

    def _split(self, language: str, split: str) -> SplitFacts:
        return self.inputs.splits[self.name, language, split]

    def _adapter(self, language: str) -> Step:
        if (self.name, language) in self.imported:
            return Step(
                kind="import",
                name=f"train/{self.name}/{language}",
                inputs={"adapter files": self.imported[self.name, language], "base": self.base},
                task=self.name,
                languages=(language,),
            )
        fresh = self._train(language, (language,), self.spec.lora.of(language))
        return self.history.adapter(fresh)

    def _train(self, name: str, languages: tuple[str, ...], lora: LoraSpec) -> Step:
        splits = {f"train rows {one}": self._split(one, "train") for one in languages}
        if self.spec.training.patience is not None:  # only then does dev have a say
            splits |= {f"dev rows {one}": self._split(one, "dev") for one in languages}
        training = self.spec.training
        return Step(
            kind="train",
            name=f"train/{self.name}/{name}",
            inputs={
                "base": self.base,
                "lora": digest(_differing(lora)),
                "training": training.identity,
                **{label: split.digest for label, split in splits.items()},
            },
            after=(self.ready,),
            rows={label: split.rows for label, split in splits.items()},
            units=sum(self._split(one, "train").bytes for one in languages) * training.epochs,
            task=self.name,
            languages=languages,
            settings={"lora": _differing(lora), "training": _differing(training, {"update"})},
        )

    def _merges(
        self, candidates: Iterable[MergeSettings], adapters: dict[str, Step]
    ) -> Iterator[Step]:
        for one in {canonical(candidate): candidate for candidate in candidates}.values():
            yield Step(
                kind="merge",
                name=f"merge/{self.name}/{one.describe()}",
                inputs={"recipe": canonical(one)},
                uses={language: adapter.id for language, adapter in adapters.items()},
                units=1,
                task=self.name,
                system=one.describe(),
                languages=self.spec.languages,
                merge=one,
            )

    def _choose(self, suffix: str, merges: dict[str, Step]) -> tuple[Step, list[Step]]:
        """The dev evaluations of these merges, and the step that chooses by them.

        One alone is chosen unseen: its score on dev would decide nothing.
        """
        rivals = merges if len(merges) > 1 else {}
        evaluations = {
            (system, language): self._evaluate(system, language, "dev", {"adapter": merge.id})
            for system, merge in rivals.items()
            for language in self.spec.languages
        }
        choice = Step(
            kind="select",
            name=f"select/{self.name}{suffix}",
            inputs={"metric": digest([self.task.metrics[0], list(labels_of(self.task))])},
            uses={
                **{
                    f"{system}|{language}": one.id
                    for (system, language), one in evaluations.items()
                },
                **{f"{system}|adapter": merge.id for system, merge in merges.items()},
            },
            units=1,
            task=self.name,
            languages=self.spec.languages,
        )
        return choice, [*evaluations.values(), choice]

    def _evaluate(
        self,
        system: str,
        language: str,
        split: str,
        uses: dict[str, str],
        after: tuple[str, ...] = (),
    ) -> Step:
        facts = self._split(language, split)
        return Step(
            kind="evaluate",
            name=f"evaluate/{self.name}/{system}/{language}/{split}",
            inputs={
                "base": self.base,
                "evaluation": digest(self.evaluation),
                f"{split} rows {language}": facts.digest,
            },
            uses=uses,
            after=(self.ready, *after),
            rows={f"{split} rows {language}": facts.rows},
            units=facts.bytes,
            settings={"evaluation": self.evaluation},
            task=self.name,
            system=system,
            languages=(language,),
            split=split,
        )


def _differing(settings: BaseModel, exclude: set[str] | None = None) -> dict[str, Any]:
    """What differs from the defaults: a new option at its default rebuilds nothing."""
    return settings.model_dump(mode="json", exclude=exclude, exclude_defaults=True)
