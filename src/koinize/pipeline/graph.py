"""Spec + data -> every step of the project, in an order in which each comes after its needs.

Per task: one adapter per language and COMB on all of them, the merges, dev scores of whatever is
chosen among, the choice, and only then (`after`) the test scores of every system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from koinize.digest import digest
from koinize.ledger.address import Address, System
from koinize.merge.recipe import MergeSettings
from koinize.model.manner import ENCODING
from koinize.pipeline.generation import (
    ROWS,
    Elsewhere,
    Generation,
    branched,
    drawn_of,
    frozen_anchors,
    frozen_trunk,
    rows_of,
)
from koinize.pipeline.inputs import Inputs, SplitFacts
from koinize.pipeline.lineage import History
from koinize.pipeline.searching import Search
from koinize.pipeline.step import Step, Uses
from koinize.pipeline.systems import (
    BASE,
    COMB,
    COMB_CONTINUED,
    INDV,
    MEAN,
    PAPER,
    TRUNK,
    candidates,
    distinct,
    only,
    similar,
)
from koinize.settings import MEMORY_ONLY, NOT_OF_A_TRAINING, LoraSpec, differing
from koinize.spec import FROM_THE_BASE, PAPERS_EIGHT, Spec
from koinize.tasks import Task


def graph(
    spec: Spec,
    inputs: Inputs,
    base: str,
    imported: Mapping[tuple[str, str], str],
    history: History,
    trunks: Mapping[str, Elsewhere] | None = None,
) -> list[Step]:
    """All steps. `base` is the base model's identity; `imported` maps (task, language) to the
    digest of an adapter that was trained elsewhere, `trunks` a task to a trunk from elsewhere;
    `history` knows what was trained before.
    """
    steps = [Step(Address("base"), inputs={"base": base}, units=1)]
    for name in spec.tasks:
        trunk = (trunks or {}).get(name)
        steps.extend(_TaskGraph(spec, name, inputs, steps[0], imported, history, trunk).steps())
    return steps


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
        trunk: Elsewhere | None,
    ) -> None:
        self.spec, self.name, self.inputs, self.trunk = spec, name, inputs, trunk
        self.base, self.ready = base.inputs["base"], base.id
        self.task: Task = spec.tasks[name]
        self.encoding = inputs.manner.settings(spec.base.template)
        evaluation = self.task.evaluation(spec.evaluation)
        self.evaluation = differing(evaluation)
        # What koinize 0.1 counted among what identifies: kept where it is all that is there.
        self.former_evaluation = digest(differing(evaluation, ()))
        self.former_training = digest(differing(spec.training, NOT_OF_A_TRAINING - MEMORY_ONLY))
        self.imported, self.history = imported, history
        self.search = Search(spec, name, history, self._evaluate)

    def steps(self) -> Iterator[Step]:
        """All of them."""
        generation = self._generation() if self.spec.training.has_trunk else None
        if generation:
            yield from generation.steps()
        adapters: dict[str, Step] = {}
        if not generation or FROM_THE_BASE.intersection(self.spec.baselines):
            adapters = {language: self._adapter(language) for language in self.spec.languages}
        yield from adapters.values()
        systems: dict[System, Uses] = {}  # what is scored, and what its evaluations use
        if "base" in self.spec.baselines:
            systems[BASE] = Uses()
        yield from self._combined(systems, generation)
        chosen_among = self._candidates(adapters, generation)
        yield from self.search.take()
        yield from (one for one in chosen_among.values() if one.kind == "merge")
        choice, steps = self._choose("", chosen_among)
        yield from steps
        after = [choice.id]
        for role, system, settings in self._chosen_baselines(adapters, generation):
            yield from self.search.take()
            merges = {one.system: one for one in self._merges(settings, adapters)}
            if generation:  # the same settings are another merge than one relative to the trunk
                merges = {system: one.at(role=role) for system, one in merges.items()}
            yield from merges.values()
            own, steps = self._choose(role, merges)
            yield from steps
            systems[system] = Uses(choice=own.id)
            after.append(own.id)
        if generation:
            systems[TRUNK] = Uses(adapter=generation.trunk.id)
        systems |= {system: Uses(adapter=merge.id) for system, merge in chosen_among.items()}
        yield from self._tests(systems, adapters, tuple(after))

    def _generation(self) -> Generation:
        """The trunk and its anchors, as they were made or are to be made, and today's branches."""
        trunk = self._trunk()
        if self.trunk is None:
            anew = self.history.new_generation
            trunk = frozen_trunk(self.history, trunk, anew=anew)
        anchors = self._anchors(trunk)
        rows = {one: self._split(one, "train").digest for one in self.spec.languages}
        branches = {one: self._branch(one, trunk, anchors) for one in branched(trunk, rows)}
        return Generation(trunk, anchors, branches)

    def _trunk(self) -> Step:
        """The trunk that today's rows and settings would make."""
        if self.trunk is not None:
            return Step(
                Address("import", self.name, role="trunk"),
                inputs={"adapter files": self.trunk.files, "base": self.base, **self.trunk.rows},
                rows=self.trunk.counts,
                languages=self.spec.languages,
                sort=self.name,
            )
        step = self._train("trunk", self.spec.languages, self.spec.lora.of(""))
        share = self.spec.training.trunk
        if not isinstance(share, float):
            return step
        return replace(
            step,
            inputs={**step.inputs, "share": digest([share, self.spec.training.seed])},
            rows={label: drawn_of(count, share) for label, count in step.rows.items()},
            units=round(share * step.units),
        )

    def _anchors(self, trunk: Step) -> Step | None:
        branch, seed = self.spec.training.branch, self.spec.training.seed
        if not branch.anchors:
            return None
        splits = {f"{ROWS}{one}": self._split(one, "train") for one in self.spec.languages}
        fresh = Step(
            Address("anchors", self.name),
            inputs={
                "anchors": digest([branch.anchors, seed]),
                **{label: split.digest for label, split in splits.items()},
            },
            uses=Uses(trunk=trunk.id),
            rows={label: split.rows for label, split in splits.items()},
            units=1,
            sort=self.name,
            languages=self.spec.languages,
            settings=self._encoding_settings(),
        )
        return frozen_anchors(self.history, fresh)

    def _branch(self, language: str, trunk: Step, anchors: Step | None) -> Step:
        training, own = self.spec.training, self._split(language, "train")
        others = [self._split(one, "train") for one in self.spec.languages if one != language]
        share = training.branch.anchors
        lora, branch = differing(self.spec.lora.of("")), differing(training.branch)
        return Step(
            Address("train", self.name, language=language, role="branch"),
            inputs={
                "base": self.base,
                **self._encoded(),
                "lora": digest(lora),
                "training": training.identity,
                "branch": digest(branch),
                f"{ROWS}{language}": own.digest,
            },
            uses=Uses(trunk=trunk.id, anchors=anchors.id if anchors else ""),
            after=(self.ready,),
            rows={f"{ROWS}{language}": own.rows},
            units=round(own.bytes + share * sum(one.bytes for one in others))
            * training.branched.epochs,
            sort=self.name,
            languages=(language,),
            why=self._left(language, trunk),
            settings={
                **self._encoding_settings(),
                "lora": lora,
                "branch": branch,
                "training": differing(training, NOT_OF_A_TRAINING),
            },
        )

    def _left(self, language: str, trunk: Step) -> str:
        """Why a language is a branch."""
        label = f"{ROWS}{language}"
        if "share" in trunk.inputs:
            return f"the trunk saw a share of the rows of {language}, if any"
        if not rows_of(trunk.inputs):
            return "what the trunk was trained on is not known"
        if label not in trunk.inputs:
            return f"{language} was not in the trunk"
        more = self._split(language, "train").rows - trunk.rows.get(label, 0)
        return f"{label} changed since the trunk, {more:+d} rows"

    def _combined(
        self, systems: dict[System, Uses], generation: Generation | None
    ) -> Iterator[Step]:
        """COMB, and COMB trained on; a trunk that is made now is COMB of today as well."""
        if "comb" not in self.spec.baselines:
            return
        fresh = self._train("comb", self.spec.languages, self.spec.lora.of(""))
        same = generation and generation.trunk.id == fresh.id
        comb = fresh if same else self.history.comb(fresh)
        yield comb
        systems[COMB] = Uses(adapter=comb.id)
        if "comb-continued" in self.spec.baselines:
            continued = self.history.comb_continued(fresh, comb)
            if continued is not None:  # otherwise it is COMB
                yield continued
                systems[COMB_CONTINUED] = Uses(adapter=continued.id)

    def _candidates(
        self, adapters: Mapping[str, Step], generation: Generation | None
    ) -> dict[System, Step]:
        """What the release is chosen among: merges; or the trunk, while nothing left it."""
        if generation and not generation.branches:
            return {TRUNK: generation.trunk}
        stated = candidates(self.spec, generation.branches if generation else None)
        parts = (generation.branches, generation.trunk) if generation else (adapters,)
        found = self.search.scales(stated, lambda some: self._merges(some, *parts))
        return {merge.system: merge for merge in self._merges(found, *parts)}

    def _chosen_baselines(
        self, adapters: Mapping[str, Step], generation: Generation | None
    ) -> Iterator[tuple[str, System, Iterable[MergeSettings]]]:
        """Baselines that are the best of several merges: the role of their choice, and which."""
        if "mean" in self.spec.baselines:
            found = self.search.means(lambda some: self._merges(some, adapters))
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
                    yield self._evaluate(only(owner), language, "test", uses, after)

    def _encoded(self) -> dict[str, str]:
        """How the base model is given texts; nothing where that is as plain text."""
        return {label: digest(said) for label, said in self._encoding_settings().items()}

    def _encoding_settings(self) -> dict[str, dict[str, Any]]:
        return {ENCODING: self.encoding} if self.encoding else {}

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
                **self._encoded(),
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
                **self._encoding_settings(),
                "lora": differing(lora),
                "training": differing(training, NOT_OF_A_TRAINING),
            },
        )
        return self.history.as_made(step, {"training": self.former_training})

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

    def _choose(self, role: str, merges: Mapping[System, Step]) -> tuple[Step, list[Step]]:
        """The dev evaluations of these merges, and the step that chooses by them.

        One alone is chosen unseen: its score on dev would decide nothing.
        """
        rivals = merges if len(merges) > 1 else {}
        evaluations = {
            (system, language): self._evaluate(system, language, "dev", Uses(adapter=merge.id)).at(
                role=merge.address.role
            )
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
            waits=self.search.goes_on,
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
                **self._encoded(),
                "evaluation": digest(self.evaluation),
                f"{split} rows {language}": facts.digest,
            },
            uses=uses,
            after=(self.ready, *after),
            rows={f"{split} rows {language}": facts.rows},
            units=facts.bytes,
            sort=self.name,
            settings={**self._encoding_settings(), "evaluation": self.evaluation},
            languages=(language,),
        )
        return self.history.as_made(step, {"evaluation": self.former_evaluation})
