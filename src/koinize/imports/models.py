"""Which adapters a mergekit configuration merges, for which base, and relative to which trunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koinize.errors import did_you_mean
from koinize.files import telling_names
from koinize.imports.reading import PARAMETERS, Reading
from koinize.spec.document import Loc

MODELS, BASE = "models", "base_model"
LAYERS = ("slices", "modules")
FORM = "`base` or `base+lora`, as text"


@dataclass(frozen=True, slots=True)
class Model:
    """`base+lora`. scope: the entry that it stands in, where its parameters are looked for."""

    scope: Loc
    base: str
    lora: str | None


@dataclass(frozen=True, slots=True)
class Models:
    """adapters: the entries with one; listed: the base's own entry; base: what `base_model` says.

    A `base_model` with an adapter is the trunk, from which mergekit takes the differences.
    """

    adapters: tuple[Model, ...]
    listed: Model | None
    base: Model | None

    @property
    def folders(self) -> dict[str, Path]:
        """The adapters' folders, named by the ends of their paths, in the order of the file."""
        paths = [Path(str(one.lora)) for one in self.adapters]
        return dict(zip(telling_names(paths), paths, strict=True))

    @property
    def trunk(self) -> Path | None:
        """The adapter of the base, if it has one."""
        return Path(self.base.lora) if self.base and self.base.lora else None


def read_models(reading: Reading) -> Models:
    """The models. Raises InputError or ManyErrors for a list in which there is nothing to merge."""
    base = None
    if reading.at(BASE) is not None:
        base = _reference(reading, (BASE,))
    entries = _entries(reading)
    loras = {one.base for one in entries if one.lora}
    right = base.base if base else next(iter(sorted(loras)), "")
    adapters: list[Model] = []
    listed: Model | None = None
    for one in entries:
        if (one.base, one.lora) == (right, base.lora if base else None):
            listed = one
        else:
            _check(reading, one, right, adapters)
            adapters.append(one)
    if entries and not adapters:
        reading.wrong((MODELS,), "there is no adapter", expected="`model: base+lora`")
        reading.stop()
    return Models(tuple(adapters), listed, base)


def _entries(reading: Reading) -> list[Model]:
    """The entries of `models`, each with its keys checked."""
    given = reading.at(MODELS)
    for key in LAYERS:
        if reading.at(key) is not None:
            remedy = "list whole models under `models`"
            reading.wrong((key,), "an adapter's layers keep their places", remedy=remedy)
            reading.stop()
    if not isinstance(given, list) or not given:
        loc: Loc = (MODELS,) if given is not None else ()
        reading.wrong(loc, "there are no models", expected="a list of `model: base+lora`")
        reading.stop()
    found = []
    for number, entry in enumerate(given):
        for key in entry if isinstance(entry, dict) else ():
            if key not in ("model", PARAMETERS):
                remedy = did_you_mean(key, ("model", PARAMETERS))
                reading.wrong((MODELS, number, key), "unknown key", remedy=remedy)
        found.append(_reference(reading, (MODELS, number, "model")))
    if None in found:
        reading.stop()
    return [one for one in found if one is not None]


def _reference(reading: Reading, loc: Loc) -> Model | None:
    """A model as mergekit splits its text."""
    text = reading.at(*loc)
    parts = text.split("+") if isinstance(text, str) else []
    if len(parts) not in (1, 2) or not all(parts):
        reading.wrong(loc, "is no name of a model", expected=FORM)
        return None
    base, lora = parts[0], parts[1] if parts[1:] else None
    name, at, revision = (lora or "").partition("@")
    if at:
        command = f"hf download {name} --revision {revision} --local-dir FOLDER"
        remedy = f"fetch it with `{command}` and name the folder"
        reading.wrong(loc, f"'{lora}' is a revision on a hub, and no folder", remedy=remedy)
    return Model(loc[:-1] if loc[0] == MODELS else (), base, lora)


def _check(reading: Reading, one: Model, right: str, before: list[Model]) -> None:
    """Note a whole model, an adapter of another base, and one that is there twice."""
    loc = (*one.scope, "model")
    if one.lora is None:
        remedy = "extract an adapter from it first (`mergekit-extract-lora`)"
        reading.wrong(loc, f"'{one.base}' is a whole model and no adapter", remedy=remedy)
    elif one.base != right:
        reading.wrong(loc, f"is for the base '{one.base}'", expected=f"'{right}', as elsewhere")
    elif one.lora in {other.lora for other in before}:
        reading.wrong(loc, f"'{one.lora}' is there twice", remedy="keep one of them")
