"""What a `koinize.yaml` may say: the sections that are not some other part's own settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from koinize.catalog import Catalog
from koinize.errors import did_you_mean
from koinize.frozen import Frozen
from koinize.ledger.prices import price_book
from koinize.merge.slots import NO_TRUNK, OTHER_SPACES, SPACES
from koinize.model.base import BaseSpec
from koinize.model.judge import JudgeSpec
from koinize.settings import BranchSpec, EvaluationSection, LoraSpec, TrainingSpec
from koinize.shown import without_secrets
from koinize.spec.cluster import ADDRESS, OfACluster
from koinize.spec.grid import AVERAGE
from koinize.spec.merging import NAME, MergeSection, Name
from koinize.store.spec import StoreSpec
from koinize.tasks import Task, tasks

VERSION = 1
"""The format of koinize.yaml. A newer koinize reads every older version."""

LANGUAGE = r"^[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*$"
CURRENCY = r"^[A-Z]{3}$"
LICENCE = r"^[a-z0-9][a-z0-9.+-]{0,63}$"
LONGEST_LANGUAGE = 35  # what BCP 47 asks software to have room for; files are named after it
ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
TAKEN = ("comb", "comb-continued")
"""What adapters of all languages are called, where each language's own is called by its code."""

PATTERNS = {
    NAME: "letters, digits, '.', '_' and '-', a letter or digit first",
    LANGUAGE: "a language code such as en or zh-Hant",
    LICENCE: "a licence as a hub names it, such as apache-2.0",
    CURRENCY: "the three letters of a currency such as USD",
    ADDRESS: "auto, HOST:PORT of a Ray cluster's head node, or ray://HOST:PORT",
}
"""What the patterns mean, for messages."""


def _known(noun: str, catalog: Catalog[Any]) -> AfterValidator:
    """Refuse a name that is not in the catalog, without loading what is."""

    def check(name: str) -> str:
        if name not in catalog.names():
            remedy = did_you_mean(name, catalog.names())
            raise ValueError(f"unknown {noun} '{name}'; {remedy}")
        return name

    return AfterValidator(check)


Baseline = Literal["base", "indv", "cross", "single", "comb", "comb-continued", "mean", "paper"]
FROM_THE_BASE = frozenset({"indv", "cross", "single", "mean", "paper"})
"""Baselines that need each language's own adapter from the base."""
Money = Annotated[
    Decimal, Field(ge=0, le=10**9, max_digits=24, decimal_places=12), PlainSerializer(str)
]
Language = Annotated[str, Field(pattern=LANGUAGE, max_length=LONGEST_LANGUAGE)]
MetricName = Annotated[str, _known("metric", Catalog("koinize.metrics", "metric"))]
ExecutorName = Annotated[str, _known("executor", Catalog("koinize.executors", "executor"))]
Points = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000)]


def _iso(value: object) -> object:
    """Refuse what pydantic would take for seconds since 1970."""
    if isinstance(value, date) or (isinstance(value, str) and ISO_DATE.fullmatch(value)):
        return value
    raise PydanticCustomError("date_parsing", "Input should be a valid date")


Date = Annotated[date, BeforeValidator(_iso)]
Told = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(without_secrets)]
"""What reports and ledgers quote."""


class _Kinded(BaseModel):
    """The one key of a task block that says what the others mean."""

    kind: Annotated[str, _known("kind", tasks)]


def _task(value: object) -> Task:
    """Let the kind's own class validate a task block (its mistakes keep their places)."""
    if isinstance(value, Task):
        return value
    return tasks.get(_Kinded.model_validate(value).kind).model_validate(value)


class LoraSection(LoraSpec):
    """LoRA settings for every language, with per-language overrides."""

    overrides: dict[str, LoraSpec] = Field(
        default={}, description="language -> the settings in which it differs, such as {r: 32}"
    )

    def of(self, language: str) -> LoraSpec:
        """The settings that this language trains with."""
        settings = self.model_dump(exclude={"overrides"})
        if language in self.overrides:
            settings |= self.overrides[language].model_dump(exclude_unset=True)
        return LoraSpec.model_validate(settings)

    @field_serializer("overrides")
    def _only_what_differs(self, overrides: dict[str, LoraSpec]) -> dict[str, Any]:
        return {
            language: one.model_dump(mode="json", exclude_unset=True)
            for language, one in overrides.items()
        }


def _listed(name: str) -> str:
    """Refuse a machine that the price book does not have."""
    if name not in price_book():
        raise ValueError(f"unknown machine '{name}'; {did_you_mean(name, price_book())}")
    return name


class _Listed(BaseModel):
    """The one key of a price that stands in the book."""

    machine: Annotated[str, AfterValidator(_listed)]


OWN = ("per_hour", "source", "date")
"""What a price of one's own must say."""


def _listed_or_own(schema: dict[str, Any]) -> None:
    """Let the JSON Schema ask for a price of one's own, or for a machine of the book alone."""
    own = {"required": schema.pop("required")}
    listed = {"required": ["machine"], "propertyNames": {"enum": ["machine", "devices"]}}
    schema["anyOf"] = [own, listed]


class Price(Frozen):
    """What the machine costs, and who says so: an entry of the price book, or the user's own."""

    model_config = ConfigDict(json_schema_extra=_listed_or_own)

    machine: Annotated[str, AfterValidator(_listed)] | None = Field(
        default=None,
        description="a machine of the price book (`koinize ledger prices`), without the other keys",
    )
    per_hour: Money
    currency: Annotated[str, Field(pattern=CURRENCY)] = "USD"
    source: Told = Field(description="where the price stands, for example a URL")
    date: Date
    devices: dict[Annotated[str, Field(min_length=1)], Price] = Field(
        default={},
        description="prices of machines whose device has these words in its name, such as A10G",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_the_book(cls, value: object) -> object:
        """Look a machine up, unless there is a price of the user's own, which comes first."""
        own = {*OWN, "currency"}
        if not isinstance(value, Mapping) or "machine" not in value or own & value.keys():
            return value
        return {**price_book()[_Listed.model_validate(value).machine].record(), **value}

    @model_validator(mode="after")
    def _one_currency_and_one_level(self) -> Price:
        """Sums are in one currency, and a device's price has no devices of its own."""
        for words, one in self.devices.items():
            if not words.strip():
                raise ValueError(f"devices: {words!r} is no word of a device's name, such as A10G")
            if one.devices:
                raise ValueError(f"devices: the price of '{words}' has devices of its own")
            if one.currency != self.currency:
                raise ValueError(
                    f"devices: '{words}' is in {one.currency}, and the others in {self.currency}; "
                    "give all prices in one currency"
                )
        return self

    def record(self) -> dict[str, str]:
        """As the ledger keeps it."""
        return {key: str(one) for key, one in self.model_dump(include={*OWN, "currency"}).items()}

    def of(self, device: str) -> Price:
        """That of a machine, by its device as the ledger calls it: the first whose words are in
        its name, or this one.
        """
        found = (one for words, one in self.devices.items() if words.lower() in device.lower())
        return next(found, self)

    @property
    def dearest(self) -> Price:
        """That of the machine that costs the most an hour."""
        return max([self, *self.devices.values()], key=lambda one: one.per_hour)


class MachineSection(OfACluster):
    """How many steps run side by side, and with how many threads each."""

    executor: ExecutorName = Field(
        default="local", description="'local' worker processes, 'inline', or a 'ray' cluster"
    )
    workers: Count | Literal["auto"] = Field(
        default="auto", description="steps side by side; auto: one per GPU or core, at most 4 cores"
    )
    threads: Count | Literal["auto"] = Field(
        default="auto", description="of each worker; auto: the cores divided among the workers"
    )
    together: Count = Field(
        default=1,
        description="trainings, or evaluations of the same rows, that a worker does at once",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="keep the inputs of layers only, for less memory and a second forward pass",
    )
    checkpoint_seconds: float = Field(
        default=300.0,
        ge=0,
        allow_inf_nan=False,
        description="of a training's work that a kill may cost: how often it saves how far it is",
    )

    @property
    def cluster(self) -> dict[str, Any]:
        """What only an executor of clusters is told."""
        if self.executor != "ray":
            return {}
        return {"address": self.address or "", "gpus": self.gpus, "memory": self.memory}

    @model_validator(mode="after")
    def _of_a_cluster(self) -> MachineSection:
        given = [one for one in ("address", "gpus", "memory") if one in self.model_fields_set]
        if given and self.executor != "ray":
            raise ValueError(f"'{given[0]}' is of a cluster: add `executor: ray`, or take it out")
        return self


def _with_comb(baselines: tuple[Baseline, ...]) -> tuple[Baseline, ...]:
    if "comb-continued" in baselines and "comb" not in baselines:
        raise ValueError("'comb-continued' goes on from 'comb'; list both")
    return baselines


Baselines = Annotated[tuple[Baseline, ...], AfterValidator(_with_comb)]


def _sorted(languages: tuple[str, ...]) -> tuple[str, ...]:
    for taken in TAKEN:
        if taken in languages:
            raise ValueError(f"'{taken}' names an adapter of all languages, so no language")
    return tuple(sorted(set(languages)))


OF_A_GENERATION: dict[str, Any] = {
    "baselines": ["base", "comb"],
    "candidates": [AVERAGE],
}
"""What a project with a trunk says by default where it differs from one without."""


class Spec(Frozen):
    """A whole project, as `load` returns it: the names in it are known and agree."""

    koinize: Literal[1] = Field(default=1, description="version of this file format")
    name: Name
    base: BaseSpec
    languages: Annotated[tuple[Language, ...], Field(min_length=1), AfterValidator(_sorted)]
    tasks: dict[Name, SerializeAsAny[Annotated[Task, BeforeValidator(_task)]]] = Field(min_length=1)
    adapters: dict[str, dict[str, str]] = Field(
        default={}, description="task -> language -> PEFT folder that was trained elsewhere"
    )
    lora: LoraSection = LoraSection()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSection = EvaluationSection()
    merge: MergeSection = MergeSection()
    baselines: Baselines = ("base", "indv", "cross", "comb", "mean")
    margins: dict[MetricName, Points] = Field(
        default={}, description="metric -> points that a language may lose before it is worse"
    )
    judges: dict[MetricName, JudgeSpec] = Field(
        default={}, description="metric -> the model that it needs, such as {bert-score: {...}}"
    )
    price: Price | None = None
    machine: MachineSection = MachineSection()
    store: StoreSpec | None = Field(
        default=None,
        description="object store that holds the artifacts; without it they stay on this machine",
    )
    license: Annotated[str, Field(pattern=LICENCE)] | None = Field(
        default=None, description="of the adapters, as a hub names it; a model card needs one"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_a_generation(cls, value: object) -> object:
        """With a trunk nothing is trained from the base: other comparisons are the usual ones."""
        if not isinstance(value, Mapping):
            return value
        training = value.get("training")
        if not isinstance(training, Mapping) or training.get("trunk", "none") == "none":
            return value
        merge = value.get("merge", {})
        if isinstance(merge, Mapping):
            merge = {"candidates": list(OF_A_GENERATION["candidates"]), **merge}
        return {"baselines": OF_A_GENERATION["baselines"], **value, "merge": merge}

    @model_validator(mode="after")
    def _commands_go_on(self) -> Spec:
        """Whatever trains on from an adapter has to be given it."""
        training, trainer = self.training, self.training.trainer
        if trainer != "koinize" and self.machine.gradient_checkpointing:
            raise ValueError("machine.gradient_checkpointing: your trainer has its own; remove it")
        if trainer == "koinize" or trainer.goes_on:
            return self
        needs = {
            "training.trunk: branches are trained on from it": training.has_trunk,
            "training.update.mode: continue": training.update.mode == "continue",
            "baselines: comb-continued": "comb-continued" in self.baselines,
        }
        if found := [what for what, needed in needs.items() if needed]:
            raise ValueError(
                f"{found[0]}, and training.trainer.command takes no adapter to train on from; "
                "name {start} in it, or remove the one or the other"
            )
        return self

    @model_validator(mode="after")
    def _seeds_are_of_trainings(self) -> Spec:
        given = {"adapters": self.adapters, "comb-continued": "comb-continued" in self.baselines}
        if self.training.seeds > 1 and (found := [what for what, there in given.items() if there]):
            raise ValueError(
                f"training.seeds: '{found[0]}' is of one seed alone; remove the one or the other"
            )
        return self

    @model_validator(mode="after")
    def _costs_are_known(self) -> Spec:
        if self.merge.explore and self.merge.explore.cost is not None and self.price is None:
            raise ValueError("merge.explore.cost: nobody knows it without a price; add one")
        return self

    @model_validator(mode="after")
    def _one_way_to_follow(self) -> Spec:
        """A trunk decides the shape of its branches, and how they follow their rows."""
        if not self.training.has_trunk:
            if "paper" in self.baselines:
                raise ValueError(
                    "baselines: 'paper' is what a project without a trunk does anyway; remove it, "
                    "or set training.trunk"
                )
            if self.merge.averages:
                raise ValueError(
                    "merge.candidates: 'average' is that of a trunk and its branches; name a "
                    "recipe, or set training.trunk"
                )
            if self.training.branch != BranchSpec():
                raise ValueError("training.branch: without a trunk nothing is a branch; remove it")
            return self
        if self.merge.across:
            raise ValueError(
                "merge.across: with a trunk every task is a generation of its own; remove it, or "
                "set training.trunk to none"
            )
        if apart := [one for one in self.merge.settings if SPACES[one.composition().space].apart]:
            raise ValueError(f"merge.candidates: {apart[0].describe()}: {NO_TRUNK}; {OTHER_SPACES}")
        if self.lora.overrides:
            raise ValueError(
                "lora.overrides: a branch has the shape of the trunk that it starts from; remove "
                "them, or set training.trunk to none"
            )
        if self.adapters and not FROM_THE_BASE.intersection(self.baselines):
            raise ValueError(
                "adapters: with a trunk nothing is made of them; remove them, or set "
                "training.trunk to none or, to begin with one of them, to {adapter: FOLDER}"
            )
        if self.training.update.mode == "continue":
            raise ValueError(
                "training.update.mode: with a trunk a changed language is a branch of it; remove "
                "'continue', or set training.trunk to none"
            )
        return self
