"""What a merge is made of: named recipes, and the settings that a user may give them.

A recipe is a composition `align . sparsify* . combine` of plug-ins, written down in one file of
`koinize.merge.recipes`. Nothing here imports torch, so a plan may validate every merge at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from koinize.catalog import Catalog
from koinize.errors import InputError, ManyErrors, did_you_mean
from koinize.frozen import Frozen
from koinize.merge.dialect import DIALECTS, EVERY_RECIPE


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


# The settings that the slots read, so that a recipe file can name them in one word.
TRIM = ("density", "scope")
DROP = ("density", "rescale", "seed")
ELECT = ("sign", "normalize")

RECIPES: Catalog[Recipe] = Catalog("koinize.merge.recipes", "recipe")

COMMON_OPTIONS = frozenset({"recipe", "weights", "scale", "rank", "dtype", "dialect", "overrides"})
# What may differ from module to module.
LOCAL_OPTIONS = frozenset(
    {"density", "epsilon", "normalize", "outliers", "rank", "rescale", "scale", "sign", "weights"}
)

# What only sparsifying reads; at density 1 every sparsifier is idle, so these mean nothing there.
OF_SPARSIFYING = frozenset({"density", "scope", "rescale", "seed", "epsilon", "outliers", "extra"})
# A factor in front of an update. Beyond it the squares that every norm is made of leave float32.
LARGEST_FACTOR = 1e15
# Combinations that are the same in all coordinates.
LINEAR = frozenset({"mean", "sum"})


class MergeSettings(Frozen):
    """Everything that determines a merge besides its inputs.

    density: share of the entries that sparsifying keeps, in (0, 1].
    weights: per language; a language that is not named has weight 1.
    scale: factor (lambda) on the result.
    rank: "full" (the sum of the adapters' ranks), a number, or an energy share in (0, 1).
    seed: of the random masks, which are keyed by (seed, language, module, index).
    dtype: of the written adapter; "auto" is bfloat16 if all factors are, else float32. The
        arithmetic is always float32 or better.
    space: where to merge, for recipes that do not fix it (`ties` in "knots" is `knots-ties`).
    scope: whether trimming ranks the entries of one "module" or of the whole "adapter".
    sign: elect it on the "total" of the values or by the "frequency" of the signs.
    normalize: divide an elected sum by the agreeing "weights", by their "count", or by "none".
    rescale: after dropping, divide by the density ("inverse") or restore the L1 norm ("l1").
    epsilon: DELLA's range: entries are kept with probability density -+ epsilon by magnitude.
    outliers: share of the largest entries that breadcrumbs removes.
    dialect: whose reading of the papers to follow; options given here still win.
    overrides: module pattern -> options that differ there, such as {"layers.[0-7].*":
        {"density": 0.3}}; a pattern is a glob over the end of the module's dotted name. Weights
        there change the languages that they name; the others keep theirs.
    """

    recipe: str
    density: float = Field(default=1.0, gt=0.0, le=1.0)
    weights: dict[str, float] = Field(default_factory=dict)
    scale: float = 1.0
    rank: Literal["full"] | int | float = "full"
    seed: int = Field(default=0, ge=0, lt=2**63)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    space: Literal["dense", "knots", "core", "factor"] | None = None
    scope: Literal["module", "adapter"] | None = None
    sign: Literal["total", "frequency"] = "total"
    normalize: Literal["weights", "count", "none"] | None = None
    rescale: Literal["inverse", "l1"] | None = None
    epsilon: float = Field(default=0.1, gt=0.0, lt=0.5)
    outliers: float = Field(default=0.01, ge=0.0, lt=1.0)
    dialect: Literal["koinize", "peft", "mergekit", "knots"] = "koinize"
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)

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
    def _sorted(cls, weights: dict[str, float]) -> dict[str, float]:
        for language, weight in weights.items():
            if abs(weight) > LARGEST_FACTOR:
                raise ValueError(
                    f"weights['{language}'] is {weight:g}; expected a magnitude of "
                    f"{LARGEST_FACTOR:g} at most"
                )
        return dict(sorted(weights.items()))

    @field_validator("scale", mode="after")
    @classmethod
    def _usable(cls, scale: float) -> float:
        if scale == 0.0:
            raise ValueError(
                f"scale {scale} would leave nothing; give a finite number other than 0"
            )
        if not 1 / LARGEST_FACTOR <= abs(scale) <= LARGEST_FACTOR:
            raise ValueError(
                f"scale is {scale:g}; expected a magnitude from {1 / LARGEST_FACTOR:g} to "
                f"{LARGEST_FACTOR:g}"
            )
        return scale

    @model_validator(mode="after")
    def _used(self) -> MergeSettings:
        """An option that the recipe does not read would be ignored in silence: refuse it."""
        read = COMMON_OPTIONS | set(RECIPES.get(self.recipe).options)
        for name in self.given():
            if name not in read:
                known = ", ".join(sorted(read - {"recipe"}))
                raise ValueError(f"recipe '{self.recipe}' does not use '{name}'; it uses {known}")
        known_recipes = DIALECTS[self.dialect].normalize
        if self.recipe not in known_recipes and EVERY_RECIPE not in known_recipes:
            raise ValueError(
                f"dialect '{self.dialect}' has no recipe '{self.recipe}'; it has "
                + ", ".join(sorted(known_recipes))
            )
        return self

    @model_validator(mode="after")
    def _epsilon_fits(self) -> MergeSettings:
        reads = "epsilon" in RECIPES.get(self.recipe).options
        if reads and self.density < 1.0 and not self.epsilon < min(self.density, 1 - self.density):
            raise ValueError(
                f"density {self.density:g} -+ epsilon {self.epsilon:g} leaves (0, 1); choose a "
                "smaller epsilon"
            )
        return self

    @model_validator(mode="after")
    def _overrides_are_settings(self) -> MergeSettings:
        for pattern, options in self.overrides.items():
            for name in options:
                if name not in LOCAL_OPTIONS:
                    raise ValueError(
                        f"overrides['{pattern}']: '{name}' cannot differ from module to module; "
                        + did_you_mean(name, LOCAL_OPTIONS)
                    )
            try:
                self._with(options)
            except ValidationError as error:
                raise ValueError(f"overrides['{pattern}']: {_plain(error.errors()[0])}") from None
        return self

    @model_validator(mode="after")
    def _scope_is_one(self) -> MergeSettings:
        local = any("density" in options for options in self.overrides.values())
        if local and self.resolve("scope") == "adapter":
            raise ValueError(
                "density cannot differ from module to module while trimming ranks the entries of "
                "the whole adapter; set scope to module"
            )
        return self

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        }

    def of_module(self, module: str) -> MergeSettings:
        """The settings of one module: these, with the overrides whose pattern matches its name.

        Raises InputError if two patterns disagree about an option, for their order has no meaning.
        """
        chosen: dict[str, tuple[str, Any]] = {}
        for pattern, options in self.overrides.items():
            if not matches(pattern, module):
                continue
            for name, value in options.items():
                other, known = chosen.setdefault(name, (pattern, value))
                if known != value:
                    raise InputError(
                        f"module '{module}' gets two values of '{name}', from the overrides "
                        f"'{other}' and '{pattern}'",
                        remedy="make the patterns disjoint",
                    )
        options = {name: value for name, (_, value) in chosen.items()}
        return self._with(options) if options else self

    def _with(self, options: Mapping[str, Any]) -> MergeSettings:
        local = {**self.given(), "overrides": {}, **options}
        if isinstance(weights := options.get("weights"), dict):
            local["weights"] = {**self.weights, **weights}
        return MergeSettings.model_validate(local)

    def composition(self) -> Recipe:
        """The recipe with the slots that `space` and the dialect put in place of its own."""
        recipe, dialect = RECIPES.get(self.recipe), DIALECTS[self.dialect]
        return replace(
            recipe,
            space=self.space or dialect.spaces.get(self.recipe, recipe.space),
            combine=dialect.combines.get(self.recipe, recipe.combine),
        )

    def resolve(self, name: str) -> Any:  # noqa: ANN401 - as various as the options are
        """The value of an option or of a dialect's convention, for a slot that asks by name."""
        value = getattr(self, name, None)
        if value is not None:
            return value
        convention = getattr(DIALECTS[self.dialect], name)
        if name == "normalize":
            return convention.get(self.recipe) or convention[EVERY_RECIPE]
        return convention

    def identity(self) -> dict[str, Any]:
        """What this merge is, as plain JSON: equal for settings that define the same merge.

        The slots, then every option that they read (a dialect's conventions among them) and that
        differs from koinize's own default. What is idle leaves no trace.
        """
        recipe, names = self.composition(), self._options_that_matter()
        sparsify = recipe.sparsify if self._sparsifies() else ()
        anywhere = recipe.combine in LINEAR and not sparsify and recipe.space != "factor"
        default = MergeSettings(recipe=self.recipe)
        found: dict[str, Any] = {
            "space": "dense" if anywhere else recipe.space,
            "sparsify": list(sparsify),
            "combine": recipe.combine,
            **self._differences(default, names),
        }
        if not anywhere and recipe.space == "dense" and self._cuts():
            found["rank limit"] = "module"  # before, it was the sum of the ranks
        overrides = {
            pattern: changed
            for pattern, options in sorted(self.overrides.items())
            if (changed := self._with(options)._differences(self, names & set(options)))
        }
        return {**found, "overrides": overrides} if overrides else found

    def warnings(self) -> list[str]:
        """What was asked for and does nothing, because at density 1 every entry is kept."""
        sparsify = self.composition().sparsify
        idle = sorted(OF_SPARSIFYING & self.given().keys())
        if not sparsify or self._sparsifies() or not (idle or "trim" not in sparsify):
            return []
        idle_too = f"; without effect: {', '.join(idle)}" if idle else ""
        return [f"at density 1 recipe '{self.recipe}' keeps every entry{idle_too}"]

    def _sparsifies(self) -> bool:
        """Whether some module has a density below 1."""
        local = [self._with(options).density for options in self.overrides.values()]
        return min([self.density, *local]) < 1.0

    def _cuts(self) -> bool:
        """Whether some module has a rank of its own, instead of a full one."""
        local = [self._with(options).rank for options in self.overrides.values()]
        return any(rank != "full" for rank in (self.rank, *local))

    def largest_rank(self, together: int, side: int) -> int:
        """The most that a module's merge may get, of adapters whose ranks add up to `together`.

        side: the shorter one of the module. "full" is the sum of the ranks: what linear merges and
        those in a space of that size have, and what an election in the dense space, whose result
        has full rank, is cut to. A number, or a share of the energy, may be more there.
        """
        recipe = self.composition()
        linear = recipe.combine in LINEAR and not recipe.sparsify
        own = together if linear or recipe.space != "dense" or self.rank == "full" else side
        return min(own, self.rank) if isinstance(self.rank, int) else own

    def _options_that_matter(self) -> set[str]:
        """Names for `resolve`: what the slots read, less what only an idle sparsifier would."""
        recipe = RECIPES.get(self.recipe)
        names = {"weights", "scale", "rank", "dtype", "folded", *recipe.options} - {"space"}
        if "sign" in recipe.options:
            names |= {"vote", "zero_sign"}
        if "scope" in recipe.options:
            names.add("extra")
        return names if self._sparsifies() else names - OF_SPARSIFYING

    def _differences(self, other: MergeSettings, names: set[str]) -> dict[str, Any]:
        return {
            name: self._plainly(name)
            for name in sorted(names)
            if self._plainly(name) != other._plainly(name)
        }

    def _plainly(self, name: str) -> Any:  # noqa: ANN401 - as various as the options are
        value = self.resolve(name)
        return (
            {key: one for key, one in value.items() if one != 1.0} if name == "weights" else value
        )

    def describe(self) -> str:
        """One short line for tables, such as `knots-ties density 0.5 rank 64`."""
        parts = [self.recipe]
        if "density" in RECIPES.get(self.recipe).options:
            parts.append(f"density {shortest_decimal(self.density)}")
        for name, value in self.given().items():
            if name not in {"recipe", "density"}:
                parts.append(f"{name} {_brief(value)}")
        return " ".join(parts)


def matches(pattern: str, module: str) -> bool:
    """Whether a glob matches a module's dotted name or its end, at a dot."""
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={_brief(item)}" for key, item in value.items())
    return shortest_decimal(value) if isinstance(value, float) else str(value)


def shortest_decimal(number: float) -> str:
    """The shortest decimal that is this number; whole ones without a point."""
    return repr(float(number)).removesuffix(".0")


def merge_settings(**options: object) -> MergeSettings:
    """`MergeSettings(**options)` with koinize's own errors: every mistake at once, one a line."""
    try:
        return MergeSettings.model_validate(options)
    except ValidationError as error:
        raise ManyErrors(InputError(_plain(detail)) for detail in error.errors()) from None


def _plain(detail: object) -> str:
    """pydantic's account of one mistake as one of our sentences."""
    assert isinstance(detail, dict)  # noqa: S101 - narrows the TypedDict of pydantic_core
    place, *keys = (str(part) for part in detail["loc"] or ("",))
    place += "".join(f"['{key}']" for key in keys)
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message
    if detail["type"] == "extra_forbidden":
        return f"unknown option '{place}'"
    if detail["type"] == "missing":
        return f"the option '{place}' is missing"
    expected = message.removeprefix("Input should be ").partition(", unable")[0]
    if expected.startswith(("greater", "less")):
        expected = f"a number {expected}"
    return f"{place} is {detail['input']!r}; expected {expected}"
