"""What a merge is made of: named recipes, and the settings that a user may give them.

A recipe is a composition `align . sparsify* . combine` of plug-ins, written down in one file of
`koinize.merge.recipes`. Nothing here imports torch, so a plan may validate every merge at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from koinize.catalog import Catalog
from koinize.errors import InputError, ManyErrors
from koinize.frozen import Frozen


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named composition. The fields of the three slots are names of plug-ins.

    `options` are the settings that the slots read, besides those that every merge has.
    """

    title: str
    paper: str
    space: str
    combine: str
    sparsify: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


RECIPES: Catalog[Recipe] = Catalog("koinize.merge.recipes", "recipe")

COMMON_OPTIONS = frozenset({"recipe", "weights", "scale", "rank", "dtype"})


class MergeSettings(Frozen):
    """Everything that determines a merge besides its inputs.

    density: share of the entries that sparsifying keeps, in (0, 1].
    weights: per language; a language that is not named has weight 1.
    scale: factor (lambda) on the result.
    rank: "full" (as much as the method needs), a number, or an energy share in (0, 1).
    seed: of the random masks, which are keyed by (seed, language, module, index).
    dtype: of the written adapter; the arithmetic is always float32 or better.
    """

    recipe: str
    density: float = Field(default=1.0, gt=0.0, le=1.0)
    weights: dict[str, float] = Field(default_factory=dict)
    scale: float = 1.0
    rank: Literal["full"] | int | float = "full"
    seed: int = Field(default=0, ge=0, lt=2**63)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @field_validator("recipe")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            RECIPES.get(name)
        except InputError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("rank", mode="before")
    @classmethod
    def _rank(cls, rank: object) -> object:
        whole = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
        share = isinstance(rank, float) and 0.0 < rank < 1.0
        if rank == "full" or whole or share:
            return rank
        raise ValueError(
            f"rank {rank!r} is not 'full', a number from 1, or a share between 0 and 1"
        )

    @field_validator("weights", mode="after")
    @classmethod
    def _finite(cls, weights: dict[str, float]) -> dict[str, float]:
        for language, weight in weights.items():
            if not math.isfinite(weight):
                raise ValueError(f"the weight of '{language}' is {weight}, which is not finite")
        return dict(sorted(weights.items()))

    @field_validator("scale", mode="after")
    @classmethod
    def _usable(cls, scale: float) -> float:
        if not math.isfinite(scale) or scale == 0.0:
            raise ValueError(
                f"scale {scale} would leave nothing; give a finite number other than 0"
            )
        return scale

    @model_validator(mode="after")
    def _used(self) -> MergeSettings:
        """An option that the recipe does not read would be ignored in silence: refuse it."""
        read = COMMON_OPTIONS | set(RECIPES.get(self.recipe).options)
        for name, field in type(self).model_fields.items():
            if name not in read and getattr(self, name) != field.default:
                known = ", ".join(sorted(read - {"recipe"}))
                raise ValueError(f"recipe '{self.recipe}' does not use '{name}'; it uses {known}")
        return self

    def describe(self) -> str:
        """One short line for tables, such as `knots-ties density 0.5 rank 64`."""
        parts = [self.recipe]
        if "density" in RECIPES.get(self.recipe).options:
            parts.append(f"density {self.density:g}")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in {"recipe", "density"} or value == field.get_default(
                call_default_factory=True
            ):
                continue
            parts.append(f"{name} {_brief(value)}")
        return " ".join(parts)


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={_brief(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def merge_settings(**options: object) -> MergeSettings:
    """`MergeSettings(**options)` with koinize's own errors: every mistake at once, one a line."""
    try:
        return MergeSettings.model_validate(options)
    except ValidationError as error:
        raise ManyErrors(InputError(_plain(detail)) for detail in error.errors()) from None


def _plain(detail: object) -> str:
    """pydantic's account of one mistake as one of our sentences."""
    assert isinstance(detail, dict)  # noqa: S101 - narrows the TypedDict of pydantic_core
    place = ".".join(str(part) for part in detail["loc"][:1])
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message
    if detail["type"] == "extra_forbidden":
        return f"unknown option '{place}'"
    if detail["type"] == "missing":
        return f"the option '{place}' is missing"
    return f"{place} {detail['input']!r}: {message[0].lower()}{message[1:]}"
