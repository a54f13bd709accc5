"""The steps that train: each language's adapter, COMB, and a generation's trunk and branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from koinize.digest import digest
from koinize.ledger.address import Address
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
from koinize.pipeline.step import Step, Uses
from koinize.pipeline.tries import Tries
from koinize.pipeline.wording import WORDING, rows_reworded, wording
from koinize.settings import MEMORY_ONLY, NOT_OF_A_TRAINING, LoraSpec, differing
from koinize.spec import Spec


class Trainings:
    """Those of one task. `imported` maps (task, language) to the digest of an adapter that was
    trained elsewhere, `history` knows what was trained before, and `trunk` is one from elsewhere.
    """

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
        self.encoding = inputs.manner.settings(spec.base.template)
        # What koinize 0.1 counted among what identifies: kept where it is all that is there.
        self.former_training = digest(differing(spec.training, NOT_OF_A_TRAINING - MEMORY_ONLY))
        self.imported, self.history = imported, history
        self.tries = Tries(history, spec.training.retries)

    def generation(self) -> Generation:
        """The trunk and its anchors, as they were made or are to be made, and today's branches."""
        trunk = self._trunk()
        if self.trunk is None:
            anew = self.history.new_generation
            trunk = self.settled(frozen_trunk(self.history, trunk, anew=anew))
        anchors = self._anchors(trunk)
        rows = {one: self.split(one, "train").digest for one in self.spec.languages}
        branches = {
            one: self.settled(self._branch(one, trunk, anchors)) for one in branched(trunk, rows)
        }
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
        step = self.train("trunk", self.spec.languages, self.spec.lora.of(""))
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
        splits = {f"{ROWS}{one}": self.split(one, "train") for one in self.spec.languages}
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
            settings=self.encoding_settings(),
        )
        return frozen_anchors(self.history, fresh)

    def _branch(self, language: str, trunk: Step, anchors: Step | None) -> Step:
        training, own = self.spec.training, self.split(language, "train")
        others = [self.split(one, "train") for one in self.spec.languages if one != language]
        share = training.branch.anchors
        lora, branch = differing(self.spec.lora.of("")), differing(training.branch)
        return Step(
            Address("train", self.name, language=language, role="branch"),
            inputs={
                "base": self.base,
                **self.encoded(),
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
                **self.encoding_settings(),
                **self.worded(language),
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
        more = self.split(language, "train").rows - trunk.rows.get(label, 0)
        made = self.history.store.manifest(trunk.id)
        step = replace(trunk, inputs={label: self.split(language, "train").digest})
        what = rows_reworded(step, made).get(label, label) if made else label
        return f"{what} changed since the trunk, {more:+d} rows"

    def adapter(self, language: str) -> Step:
        """A language's own adapter: trained, or taken over from elsewhere."""
        if (self.name, language) in self.imported:
            return Step(
                Address("import", self.name, language=language),
                inputs={"adapter files": self.imported[self.name, language], "base": self.base},
                languages=(language,),
                sort=self.name,
            )
        fresh = self.train("", (language,), self.spec.lora.of(language))
        return self.settled(self.history.adapter(fresh))

    def settled(self, step: Step) -> Step:
        """The try at a training that stands in its place; only one on today's rows is repeated."""
        known = {one: self.inputs.splits.get((self.name, one, "train")) for one in step.languages}
        seen = rows_of(step.inputs)
        todays = all(
            one in seen and split and split.digest == seen[one] for one, split in known.items()
        )
        return self.tries.settle(step, todays=todays)

    def train(self, role: str, languages: tuple[str, ...], lora: LoraSpec) -> Step:
        """One language's training, or one of all languages in some role."""
        splits = {f"train rows {one}": self.split(one, "train") for one in languages}
        if self.spec.training.patience is not None:  # only then does dev have a say
            splits |= {f"dev rows {one}": self.split(one, "dev") for one in languages}
        training = self.spec.training
        step = Step(
            Address("train", self.name, language="" if role else languages[0], role=role),
            inputs={
                "base": self.base,
                **self.encoded(),
                "lora": digest(differing(lora)),
                "training": training.identity,
                **{label: split.digest for label, split in splits.items()},
            },
            after=(self.ready,),
            rows={label: split.rows for label, split in splits.items()},
            units=sum(self.split(one, "train").bytes for one in languages) * training.epochs,
            sort=self.name,
            languages=languages,
            settings={
                **self.encoding_settings(),
                **self.worded(*languages),
                "lora": differing(lora),
                "training": differing(training, NOT_OF_A_TRAINING),
            },
        )
        return self.history.as_made(step, {"training": self.former_training})

    def encoded(self) -> dict[str, str]:
        """How the base model is given texts; nothing where that is as plain text."""
        return {label: digest(said) for label, said in self.encoding_settings().items()}

    def encoding_settings(self) -> dict[str, dict[str, Any]]:
        """What stands behind that digest."""
        return {ENCODING: self.encoding} if self.encoding else {}

    def worded(self, *languages: str) -> dict[str, dict[str, Any]]:
        """In which words these languages are asked."""
        return {WORDING: {one: self.words[one] for one in languages}}

    @cached_property
    def words(self) -> dict[str, dict[str, str]]:
        """A digest of each field that words a language, by language."""
        task = self.spec.tasks[self.name]
        return {one: wording(task, one) for one in self.spec.languages}

    def split(self, language: str, split: str) -> SplitFacts:
        """What is known of a language's rows."""
        return self.inputs.splits[self.name, language, split]
