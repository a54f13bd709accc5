"""What a `koinize.yaml` may say: the sections that are not some other part's own settings."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    model_validator,
)

from koinize.base import BaseSpec
from koinize.errors import InputError
from koinize.frozen import Frozen
from koinize.recipe import MergeSettings
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.spec.grid import expand
from koinize.tasks import Task, tasks

VERSION = 1
"""The format of koinize.yaml. A newer koinize reads every older version."""

Baseline = Literal["base", "indv", "cross", "comb", "mean"]
Money = Annotated[Decimal, Field(ge=0), PlainSerializer(str)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*$")]


def _task(value: object) -> Task:
    """Let the kind's own class validate a task block (its mistakes keep their places)."""
    if isinstance(value, Task):
        return value
    if not isinstance(value, dict):
        raise ValueError("a task is a mapping that begins with its kind")
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError(f"a task needs a kind, one of: {', '.join(tasks.names())}")
    try:
        chosen = tasks.get(kind)
    except InputError as error:
        raise ValueError(str(error)) from None
    return chosen.model_validate(value)


def _lora_settings(value: dict[str, Any]) -> dict[str, Any]:
    LoraSpec.model_validate(value)
    return value


class LoraSection(LoraSpec):
    """LoRA settings for every language, with per-language overrides."""

    overrides: dict[Language, Annotated[dict[str, Any], AfterValidator(_lora_settings)]] = Field(
        default={}, description="language -> the settings in which it differs, such as {r: 32}"
    )

    def of(self, language: str) -> LoraSpec:
        """The settings that this language trains with."""
        common = self.model_dump(exclude={"overrides"})
        return LoraSpec.model_validate(common | self.overrides.get(language, {}))


class MergeSection(Frozen):
    """Which merges are tried; the best on dev becomes the multilingual adapter."""

    candidates: tuple[Annotated[tuple[MergeSettings, ...], BeforeValidator(expand)], ...] = Field(
        default=("paper",),
        validate_default=True,
        min_length=1,
        description="'paper' (the paper's eight), a recipe's name, or a mapping of settings in "
        "which a list makes a grid, such as {recipe: ties, density: [0.3, 0.5]}",
    )
    mean_scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0, 1.5, 2.0),
        min_length=1,
        description="the MEAN baseline's scales, the best chosen on dev",
    )

    @property
    def settings(self) -> tuple[MergeSettings, ...]:
        """Every candidate once, in the order of the file."""
        listed = [one for entry in self.candidates for one in entry]
        return tuple({one.model_dump_json(): one for one in listed}.values())


class Price(Frozen):
    """What the machine costs, and who says so."""

    per_hour: Money
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    source: str = Field(min_length=1, description="where the price stands, for example a URL")
    date: date

    def record(self) -> dict[str, str]:
        """As the ledger keeps it."""
        return {key: str(value) for key, value in self.model_dump().items()}


class MachineSection(Frozen):
    """How many steps run side by side, and with how many threads each."""

    executor: str = Field(default="local", description="'local' worker processes or 'inline'")
    workers: int | Literal["auto"] = Field(default="auto")
    threads: int | Literal["auto"] = Field(default="auto")


def _distinct(languages: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({one for one in languages if languages.count(one) > 1})
    if twice:
        raise ValueError(f"language {', '.join(twice)} is given twice")
    return tuple(sorted(languages))


class Spec(Frozen):
    """A whole project."""

    koinize: Literal[1] = Field(default=VERSION, description="version of this file format")
    name: Name
    base: BaseSpec
    languages: Annotated[tuple[Language, ...], Field(min_length=1), AfterValidator(_distinct)]
    tasks: dict[Name, SerializeAsAny[Annotated[Task, BeforeValidator(_task)]]] = Field(min_length=1)
    adapters: dict[str, dict[str, str]] = Field(
        default={}, description="task -> language -> PEFT folder that was trained elsewhere"
    )
    lora: LoraSection = LoraSection()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    merge: MergeSection = MergeSection()
    baselines: tuple[Baseline, ...] = ("base", "indv", "cross", "comb", "mean")
    margins: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="metric -> points that a language may lose before it is worse"
    )
    price: Price | None = None
    machine: MachineSection = MachineSection()

    @model_validator(mode="after")
    def _names_that_agree(self) -> Spec:
        known = set(self.languages)
        places: dict[str, set[str]] = {"lora.overrides": set(self.lora.overrides)}
        for task, folders in self.adapters.items():
            if task not in self.tasks:
                raise ValueError(f"adapters names the task '{task}', which is not under tasks")
            places[f"adapters.{task}"] = set(folders)
        for entry in self.merge.settings:
            places["merge weights"] = places.get("merge weights", set()) | set(entry.weights)
        for place, languages in places.items():
            if unknown := sorted(languages - known):
                raise ValueError(f"{place} names {', '.join(unknown)}, not one of the languages")
        return self
