"""What a merge is made of: named recipes, and the settings that a user may give them.

A recipe is a composition `align . sparsify* . combine` of plug-ins, written down in one file of
`koinize.merge.recipes`. Nothing here imports torch, so a plan may validate every merge at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError, field_validator, model_validator

from koinize.catalog import Catalog
from koinize.errors import InputError, ManyErrors, did_you_mean
from koinize.frozen import Frozen
from koinize.merge.dialect import DIALECTS, EVERY_RECIPE
from koinize.merge.division import Groups, inexact
from koinize.merge.option import (
    COMMON,
    LOCAL,
    SPARSIFYING,
    brief,
    having,
    in_a_sentence,
    matches,
    option,
    shortest_decimal,
)
from koinize.merge.slots import COMBINES, SPACES, SPARSIFIERS


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

    @property
    def on_factors(self) -> bool:
        """Whether it is linear in the updates, so that it is a sum of products as they are."""
        linear = COMBINES[self.combine].linear
        return linear and not self.sparsify and not SPACES[self.space].apart


# The settings that the slots read, so that a recipe file can name them in one word.
TRIM = ("density", "scope")
DROP = ("density", "rescale", "seed")
ELECT = ("sign", "normalize")

RECIPES: Catalog[Recipe] = Catalog("koinize.merge.recipes", "recipe")

# A factor in front of an update. Beyond it the squares that every norm is made of leave float32.
LARGEST_FACTOR = 1e15


class MergeSettings(Frozen):
    """Everything that determines a merge besides its inputs.

    An option is declared here and nowhere else: the command line, koinize.yaml, its JSON Schema and
    the table in docs/merging.md take its name, values, default and meaning from here.
    """

    recipe: str = option("a recipe's name; `koinize recipes` lists them", COMMON)
    density: float = option(
        "share of the entries that sparsifying keeps, above 0 and up to 1",
        LOCAL, SPARSIFYING, default=1.0, gt=0.0, le=1.0,
    )  # fmt: skip
    weights: dict[str, float] = option(
        "language -> weight; 1 for those that are not named", COMMON, LOCAL, default={}
    )
    groups: Groups = option(
        "languages that are merged first, with the same recipe; then what the groups became",
        COMMON, default=(),
    )  # fmt: skip
    scale: float = option(
        "factor on the result; with a trunk, on what is added to it", COMMON, LOCAL, default=1.0
    )
    rank: Literal["full"] | int | float = option(
        "of the written adapter: `full` (the sum of the adapters' ranks), a number, or the share "
        "of the energy to keep, between 0 and 1",
        COMMON, LOCAL, default="full",
    )  # fmt: skip
    seed: int = option(
        "of random masks, which are keyed by seed, language and module",
        SPARSIFYING, default=0, ge=0, lt=2**63,
    )  # fmt: skip
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "of the written adapter: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 if all "
        "factors are, else float32; the arithmetic is float32 or better in any case",
        COMMON, default="auto",
    )  # fmt: skip
    space: Literal["dense", "knots", "core", "factor"] | None = option(
        "where to merge, for recipes that leave it open: `dense`, `knots`, `core` or `factor`",
        default=None,
    )
    scope: Literal["module", "adapter"] | None = option(
        "trim within each `module` or over the whole `adapter`", SPARSIFYING, default=None
    )
    sign: Literal["total", "frequency"] = option(
        "elect signs by the `total` of the values or the `frequency` of the signs",
        LOCAL, default="total",
    )  # fmt: skip
    normalize: Literal["weights", "count", "none"] | None = option(
        "divide an elected sum by the agreeing `weights`, by their `count`, or by `none`",
        LOCAL, default=None,
    )  # fmt: skip
    rescale: Literal["inverse", "l1"] | None = option(
        "after dropping, divide by the density (`inverse`) or restore the L1 norm (`l1`)",
        LOCAL, SPARSIFYING, default=None,
    )  # fmt: skip
    epsilon: float = option(
        "half the range of DELLA's keep probabilities, which grow with the magnitude",
        LOCAL, SPARSIFYING, default=0.1, gt=0.0, lt=0.5,
    )  # fmt: skip
    outliers: float = option(
        "share of the largest entries that breadcrumbs removes",
        LOCAL, SPARSIFYING, default=0.01, ge=0.0, lt=1.0,
    )  # fmt: skip
    dialect: Literal["koinize", "peft", "mergekit", "knots"] = option(
        "whose reading of the papers to follow: `koinize`, `peft`, `mergekit` or `knots`; options "
        "that are given still win",
        COMMON, default="koinize",
    )  # fmt: skip
    overrides: dict[str, dict[str, Any]] = option(
        "pattern of module names, a glob over their ends -> options that differ there; `weights` "
        "change the languages that they name, and no others",
        COMMON, default={},
    )  # fmt: skip

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
    def _groups_are_exact(self) -> MergeSettings:
        one = self.composition()
        whole = bool(one.sparsify) and self.resolve("scope") == "adapter"
        if self.groups and (why := inexact(one.space, linear=one.on_factors, whole=whole)):
            raise ValueError(f"recipe '{self.recipe}' {why}")
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
                raise ValueError(
                    f"overrides['{pattern}']: {in_a_sentence(error.errors()[0])}"
                ) from None
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
        anywhere = replace(recipe, sparsify=sparsify).on_factors
        default = MergeSettings(recipe=self.recipe)
        found: dict[str, Any] = {
            "space": "dense" if anywhere else recipe.space,
            "sparsify": list(sparsify),
            "combine": recipe.combine,
            **self._differences(default, names),
            **({"groups": self.groups} if self.groups else {}),
        }
        if not anywhere and SPACES[recipe.space].full and self._cuts():
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
        missed = idle or any(SPARSIFIERS[name].needs_density for name in sparsify)
        if not sparsify or self._sparsifies() or not missed:
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
        more = SPACES[recipe.space].full and not recipe.on_factors and self.rank != "full"
        own = side if more else together
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
                parts.append(f"{name} {brief(value)}")
        return " ".join(parts)


COMMON_OPTIONS, LOCAL_OPTIONS = having(MergeSettings, COMMON), having(MergeSettings, LOCAL)
OF_SPARSIFYING = having(MergeSettings, SPARSIFYING) | {"extra"}  # a dialect's convention


def merge_settings(**options: object) -> MergeSettings:
    """`MergeSettings(**options)` with koinize's own errors: every mistake at once, one a line."""
    try:
        return MergeSettings.model_validate(options)
    except ValidationError as error:
        raise ManyErrors(InputError(in_a_sentence(detail)) for detail in error.errors()) from None
