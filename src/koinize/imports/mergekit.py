"""A mergekit configuration over `base+lora` as a koinize merge.

Keys mean what mergekit 0.1.5 does with them, not what their names suggest. What has no meaning for
adapters, or no counterpart here, is refused key by key. docs/coming-from.md has the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from koinize.errors import InputError, did_you_mean
from koinize.imports.models import BASE, LAYERS, MODELS, Model, Models, read_models
from koinize.imports.reading import PARAMETERS, Reading, Setting
from koinize.merge.recipe import MergeSettings, merge_settings
from koinize.spec.document import Loc, read_document

ELECTION = ("weight", "density", "normalize", "rescale", "lambda")


@dataclass(frozen=True, slots=True)
class Method:
    """A mergekit method: our recipe, and its parameters.

    normalized, rescaled: mergekit's defaults of `normalize` and `rescale`. elects: whether signs
    are elected.
    """

    recipe: str
    reads: tuple[str, ...] = ELECTION
    normalized: bool = False
    rescaled: bool = False
    elects: bool = False


METHODS: Mapping[str, Method] = {
    "linear": Method("mean", ("weight", "normalize"), normalized=True),
    "task_arithmetic": Method("sum", ("weight", "normalize", "lambda")),
    "ties": Method("ties", normalized=True, elects=True),
    "dare_ties": Method("dare-ties", rescaled=True, elects=True),
    "dare_linear": Method("dare-linear", rescaled=True),
    "della": Method("della", (*ELECTION, "epsilon"), normalized=True, rescaled=True, elects=True),
    "breadcrumbs": Method("breadcrumbs", (*ELECTION, "gamma")),
    "sce": Method("sce", ("select_topk",)),
}
OTHERS = (
    *("slerp", "nuslerp", "multislerp", "karcher", "passthrough", "model_stock", "nearswap"),
    *("arcee_fusion", "ram", "ramplus_tl", "breadcrumbs_ties", "della_linear"),
)
NUMBERS = {
    "density": ("density", 1.0),
    "select_topk": ("density", 1.0),
    "epsilon": ("epsilon", 0.15),
    "gamma": ("outliers", 0.01),
    "lambda": ("scale", 1.0),
}
"""mergekit's parameter -> our option, and mergekit's default."""
OF_SPARSIFYING = ("density", "epsilon", "outliers")  # idle where every entry is kept
PER_MODEL = ("weight", "density", "epsilon", "gamma")
IDLE = "int8_mask"
NAMES = ("weight", *NUMBERS, "normalize", "rescale", IDLE)
METHOD, TEMPLATE = "merge_method", "chat_template"
TOKENIZERS, DTYPES = ("tokenizer_source", "tokenizer"), ("dtype", "out_dtype")
KEYS = (MODELS, *LAYERS, METHOD, BASE, PARAMETERS, *DTYPES, *TOKENIZERS, TEMPLATE)
WRITTEN = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Imported:
    """The merge that a configuration asks for.

    adapters: folders by language, which are named by the ends of their paths. trunk: the adapter
    of `base_model`, if it has one. notes: what was left out or is not quite mergekit's.
    """

    adapters: Mapping[str, Path]
    settings: MergeSettings
    trunk: Path | None
    notes: tuple[str, ...]

    def with_rank(self, rank: object) -> Imported:
        """The same merge, written with another rank. Raises InputError for what is none."""
        return replace(self, settings=merge_settings(**{**self.settings.given(), "rank": rank}))


def read_mergekit(path: Path) -> Imported:
    """Read mergekit's YAML; no adapter is opened.

    Raises InputError, or ManyErrors with one message for each key that cannot be kept.
    """
    document = read_document(path, f"`{METHOD}`", "name a mergekit configuration")
    reading = Reading(document)
    name = _method(reading)
    _check_keys(reading)
    models = read_models(reading)
    method = METHODS[name]
    _check_parameters(reading, method, models)
    _check_base(reading, name, models)
    options = _Options(reading, method, models)
    found = {"recipe": method.recipe, "dialect": "mergekit", **_dtype(reading), **options.read()}
    reading.stop()
    try:
        settings = merge_settings(**found)
    except InputError as error:
        raise InputError(str(error), where=document.name) from None
    return Imported(models.folders, settings, models.trunk, tuple(reading.notes))


def _method(reading: Reading) -> str:
    """The method, which decides what all other keys mean. Raises InputError."""
    name = reading.at(METHOD)
    if isinstance(name, str) and name in METHODS:
        return name
    known = f"one of {', '.join(METHODS)}"
    if name is None:
        reading.wrong((), f"{METHOD} is missing", expected=known)
    elif name in OTHERS:
        reading.wrong((METHOD,), f"no recipe here does what '{name}' does", expected=known)
    else:
        reading.wrong((METHOD,), f"unknown '{name}'", remedy=did_you_mean(str(name), METHODS))
    raise reading.errors[0]


def _check_keys(reading: Reading) -> None:
    """Keys of the top that mergekit would ignore, or that mean nothing for an adapter."""
    for key in reading.document.values:
        if key not in KEYS:
            reading.wrong((key,), "unknown key", remedy=did_you_mean(key, KEYS))
    if reading.at(TEMPLATE) is not None:
        remedy = "set it where the adapter is served"
        reading.wrong((TEMPLATE,), "a merged adapter has no template", remedy=remedy)
    for key in TOKENIZERS:
        value = reading.at(key)
        if isinstance(value, dict) and set(value) == {"source"}:
            value = value["source"]
        if value in ("base", reading.at(BASE)) and value is not None:
            reading.left_out((key,), "is the base's, as of every adapter")
        elif value is not None:
            remedy = "remove it: an adapter is used with its base's tokenizer"
            reading.wrong((key,), "a merged adapter has no tokenizer", remedy=remedy)


def _check_parameters(reading: Reading, method: Method, models: Models) -> None:
    """Parameters that the method does not read where they stand, which mergekit would ignore."""
    entries = [*models.adapters, *([models.listed] if models.listed else [])]
    for scope in [one.scope for one in entries] + [()]:
        loc: Loc = (*scope, PARAMETERS)
        given = reading.at(*loc)
        if given is not None and not isinstance(given, dict):
            reading.wrong(loc, "holds no names", expected="`name: value` pairs")
            continue
        for name in given or {}:
            place = (*loc, name)
            if name not in NAMES:
                reading.wrong(place, "unknown parameter", remedy=did_you_mean(name, NAMES))
            elif name == IDLE:
                reading.left_out(place, "changes no number")
            elif name not in method.reads:
                expected = f"one of {', '.join(method.reads)}"
                reading.wrong(place, "the method does not read it", expected=expected)
            elif scope and name not in PER_MODEL:
                remedy = f"move it to the {PARAMETERS} of the whole merge"
                reading.wrong(place, "is not read from one model", remedy=remedy)


def _check_base(reading: Reading, method: str, models: Models) -> None:
    if models.base is None and method != "linear" and reading.at(BASE) is None:
        remedy = "name the model that the adapters are for"
        reading.wrong((), f"{BASE} is missing", remedy=remedy)
    if models.listed and method != "linear":
        reading.left_out((*models.listed.scope, "model"), "is the base itself")


def _dtype(reading: Reading) -> dict[str, str]:
    """The dtype of the written adapter: that of the output goes first, as in mergekit."""
    found = "auto"
    for key in DTYPES:
        if (value := reading.at(key)) is None:
            continue
        found = str(value).removeprefix("torch.")
        if found not in WRITTEN:
            reading.wrong((key,), f"unknown '{value}'", expected=f"one of {', '.join(WRITTEN)}")
    if found != "auto":
        reading.notes.append(f"dtype {found} is of the written adapter; the arithmetic is float32")
    return {"dtype": found}


class _Options:
    """The numbers and switches of a method in our words. `overrides` are mergekit's filters."""

    def __init__(self, reading: Reading, method: Method, models: Models) -> None:
        self.reading, self.method, self.models = reading, method, models
        self.options: dict[str, Any] = {}
        self.overrides: dict[str, dict[str, Any]] = {}

    def read(self) -> dict[str, Any]:
        """All of them, without what is koinize's own default."""
        weights = self._weights()
        for name in NUMBERS:
            if name in self.method.reads:
                self._number(name)
        self._normalize(weights)
        self._rescale()
        self._notes(weights)
        if not self._thins():
            for name in OF_SPARSIFYING:
                self.options.pop(name, None)
        return {**self.options, **({"overrides": self.overrides} if self.overrides else {})}

    def _weights(self) -> list[Setting]:
        """Of the adapters. mergekit has no default for a weight."""
        if "weight" not in self.method.reads:
            return []
        found = []
        for name, one in zip(self.models.folders, self.models.adapters, strict=True):
            setting = self._weight(one)
            self.options.setdefault("weights", {})[name] = setting.otherwise or 0.0
            for pattern, value in setting.cases.items():
                self.overrides.setdefault(pattern, {}).setdefault("weights", {})[name] = value
            found.append(setting)
        if set(self.options["weights"].values()) == {1.0}:
            del self.options["weights"]
        return found

    def _weight(self, one: Model) -> Setting:
        found = self.reading.setting("weight", (one.scope, ()))
        if found.otherwise is None:
            where = (*one.scope, "model")
            self.reading.wrong(where, "has no weight", remedy="give it one in its parameters")
        return found

    def _number(self, name: str) -> None:
        """A parameter that is one number for all adapters here, whatever it is in mergekit."""
        option, default = NUMBERS[name]
        entries = self.models.adapters if name in PER_MODEL else self.models.adapters[:1]
        found = [
            self.reading.setting(name, (one.scope, ()) if name in PER_MODEL else ((),))
            for one in entries
        ]
        for one, setting in zip(entries, found, strict=True):
            if setting != found[0]:
                self.reading.wrong(
                    (*one.scope, PARAMETERS, name),
                    "is another than the first adapter's",
                    expected=f"one {option} for all adapters",
                )
        self.options[option] = default if found[0].otherwise is None else found[0].otherwise
        for pattern, value in found[0].cases.items():
            self.overrides.setdefault(pattern, {})[option] = value

    def _normalize(self, weights: Sequence[Setting]) -> None:
        """What the weighted updates are divided by."""
        if "normalize" not in self.method.reads:
            return
        normalize = self.reading.flag("normalize", default=self.method.normalized)
        recipe = self.method.recipe
        if recipe == "mean":
            self._average(weights, normalize=normalize)
        elif self.method.elects:
            if normalize != self.method.normalized:
                self.options["normalize"] = "weights" if normalize else "none"
        elif normalize and recipe == "sum":
            self.options["recipe"] = "mean"
        elif normalize and recipe == "dare-linear":  # our own is the mean
            self.options |= {"dialect": "koinize", "rescale": "l1"}
        elif normalize:
            self._divide(weights)

    def _average(self, weights: Sequence[Setting], *, normalize: bool) -> None:
        """`linear` averages whole models, of which the base may be one."""
        own, of_base = _total(weights), self._base_weight()
        whole = own + of_base
        filtered = any(one.cases for one in weights)
        if filtered and (of_base or not normalize):
            what = "where weights have filters, the base's share is no one number"
            self.reading.wrong((PARAMETERS,), what)
        elif normalize and of_base and not whole:
            self.reading.wrong((PARAMETERS,), "the weights, with the base's, add up to 0")
        elif normalize and of_base:
            self.options["scale"] = own / whole
        elif not normalize and not math.isclose(whole, 1.0, rel_tol=1e-6):
            self.reading.wrong(
                (PARAMETERS, "normalize"),
                f"false multiplies the base by the sum of the weights, {whole:g}",
                expected="true, or weights that add up to 1",
            )
        elif not normalize:
            self.options["recipe"] = "sum"

    def _base_weight(self) -> float:
        """What the base counts in `linear`, which takes `base_model` for one more model."""
        if self.models.listed:
            return self._weight(self.models.listed).otherwise or 0.0
        if self.models.base is None:
            return 0.0
        found = self.reading.setting("weight", ((),)).otherwise
        if found is None:
            self.reading.wrong(
                (BASE,),
                "linear takes it for one more model, and it has no weight",
                remedy="remove it, or list it under models with a weight",
            )
        return found or 0.0

    def _divide(self, weights: Sequence[Setting]) -> None:
        """A sum without an election, which no recipe of ours divides: by its scale."""
        total = _total(weights)
        if any(one.cases for one in weights) or not total:
            what = "the weights have no one sum, other than 0, to divide by"
            self.reading.wrong((PARAMETERS, "normalize"), what)
            return
        for one in (self.options, *self.overrides.values()):
            if "scale" in one:
                one["scale"] /= total

    def _rescale(self) -> None:
        """What is dropped at random is made up for here, and what is trimmed is not."""
        if "rescale" not in self.method.reads:
            return
        if self.reading.flag("rescale", default=self.method.rescaled) != self.method.rescaled:
            always = "always" if self.method.rescaled else "never"
            what = f"recipe '{self.method.recipe}' {always} rescales"
            self.reading.wrong((PARAMETERS, "rescale"), what)

    def _thins(self) -> bool:
        """Whether some module has a density below 1."""
        return any(
            one.get("density", 1.0) < 1.0 for one in (self.options, *self.overrides.values())
        )

    def _notes(self, weights: Sequence[Setting]) -> None:
        if self.method.elects and any(one.lowest < 0.0 for one in weights):
            self.reading.notes.append(
                "a weight is negative: mergekit divides an election by the signed sum, koinize by "
                "the sum of the magnitudes"
            )
        if self.method.rescaled and self._thins():
            self.reading.notes.append(
                "random masks are koinize's own, by seed, language and module, and not mergekit's"
            )


def _total(weights: Sequence[Setting]) -> float:
    return math.fsum(one.otherwise or 0.0 for one in weights)
