"""A space of merges: what may vary, between which values, and what looking around may cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from koinize.errors import InputError
from koinize.frozen import Frozen
from koinize.merge.recipe import RECIPES, MergeSettings, merge_settings

FEWEST, MOST = 8, 512
LOWEST, HIGHEST = 1e-3, 1e3
Factor = Annotated[float, Field(ge=LOWEST, le=HIGHEST)]


class Range(Frozen):
    """Every value between two, both included."""

    low: Factor
    high: Factor

    @model_validator(mode="after")
    def _upwards(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; expected low below high")
        return self


def _values(value: object) -> object:
    """Refuse what is neither a range nor a list of numbers, in one sentence."""
    if isinstance(value, Range):
        return value
    if isinstance(value, Mapping):
        return Range.model_validate(value)
    if isinstance(value, list | tuple) and value:
        return tuple(one for place, one in enumerate(value) if one not in value[:place])
    raise ValueError(f"{value!r} gives no values; write a list, or {{low: 0.5, high: 2.0}}")


Values = Annotated[Range | tuple[Factor, ...], BeforeValidator(_values)]


class Space(Frozen):
    """What a search with Optuna may vary, and what it may cost."""

    recipe: tuple[str, ...] = Field(min_length=1, description="recipes to choose from")
    density: Values | None = Field(
        default=None,
        description="a list, or `{low: 0.3, high: 1.0}`; of the recipes that have one",
    )
    scale: Values | None = Field(
        default=None, description="a list, or a range, in which factors are alike"
    )
    weights: Range | None = Field(
        default=None, description="a range, in which every language has a weight of its own"
    )
    modules: dict[str, Range] = Field(
        default={},
        description="pattern of module names -> range of a factor on the scale there, such as "
        "`layers.[0-8].*`: a profile over depth",
    )
    trials: int = Field(
        default=64,
        ge=FEWEST,
        le=MOST,
        description="merges to look at, besides the candidates that are listed",
    )
    hours: float | None = Field(
        default=None, gt=0, description="of work, steps one after the other: no more are proposed"
    )
    cost: Annotated[Decimal, PlainSerializer(str)] | None = Field(
        default=None, gt=0, description="the same at the price of the machine, or of the dearest"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of what is proposed")

    @field_validator("recipe", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("recipe")
    @classmethod
    def _known(cls, recipes: tuple[str, ...]) -> tuple[str, ...]:
        for name in recipes:
            try:
                RECIPES.get(name)
            except InputError as error:
                raise ValueError(str(error)) from None
        return tuple(dict.fromkeys(recipes))

    @model_validator(mode="after")
    def _varies(self) -> Space:
        """Refuse a space without room, and one whose merges nobody could make."""
        dense = [one for one in self.recipe if "density" in RECIPES.get(one).options]
        if self.density is not None and not dense:
            raise ValueError("density: none of these recipes has one; remove it, or name others")
        ranges = [self.density, self.scale, self.weights, *self.modules.values()]
        choices = [self.recipe, *(one for one in ranges if isinstance(one, tuple))]
        if not any(isinstance(one, Range) for one in ranges) and max(map(len, choices)) == 1:
            raise ValueError("nothing varies in this space; give a list of two, or a range")
        for recipe in self.recipe:
            for edge in ("low", "high"):
                try:
                    self.settings(self._edge(recipe, edge), ())
                except InputError as error:
                    raise ValueError(str(error)) from None
        return self

    def dimensions(
        self, recipe: str, languages: tuple[str, ...]
    ) -> dict[str, Range | tuple[float, ...]]:
        """What varies besides the recipe, by name."""
        dense = "density" in RECIPES.get(recipe).options
        own = {"density": self.density if dense else None, "scale": self.scale}
        weights = {f"weight {one}": self.weights for one in languages}
        modules = {f"modules {pattern}": one for pattern, one in self.modules.items()}
        return {name: one for name, one in {**own, **weights, **modules}.items() if one is not None}

    def settings(self, point: Mapping[str, Any], languages: tuple[str, ...]) -> MergeSettings:
        """The merge at a point: a recipe, and a value of each of its dimensions.

        Raises InputError for values that the recipe cannot have.
        """
        scale = point.get("scale", 1.0)
        given = {name: point[name] for name in ("recipe", "density", "scale") if name in point}
        if weights := {one: point[f"weight {one}"] for one in languages if self.weights}:
            given["weights"] = weights
        if self.modules:
            given["overrides"] = {
                pattern: {"scale": _short(scale * point[f"modules {pattern}"])}
                for pattern in self.modules
            }
        return merge_settings(**given)

    def lowest(self, recipe: str, languages: tuple[str, ...]) -> MergeSettings:
        """The merge by this recipe where every value is the lowest."""
        return self.settings(self._edge(recipe, "low", languages), languages)

    def _edge(self, recipe: str, edge: str, languages: tuple[str, ...] = ()) -> dict[str, Any]:
        found: dict[str, Any] = {"recipe": recipe}
        for name, one in self.dimensions(recipe, languages).items():
            place = 0 if edge == "low" else -1
            found[name] = getattr(one, edge) if isinstance(one, Range) else sorted(one)[place]
        return found


def _short(value: float) -> float:
    """As a table shows it."""
    return float(f"{value:.3g}")
