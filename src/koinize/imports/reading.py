"""mergekit's YAML, value by value: filters, and mistakes that gather while keys are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koinize.errors import InputError, ManyErrors
from koinize.files import parse_json, read_bytes
from koinize.spec.document import Document, Loc, dotted

FLAGS = {
    **dict.fromkeys(("true", "yes", "on"), True),  # mergekit reads YAML 1.1
    **dict.fromkeys(("false", "no", "off"), False),
}
NO_PATTERN = set("*?[]=:")  # in a filter: they mean something in our patterns, or on a command line
SUFFIX = ".weight"  # of a tensor's name, where a module's has none
PARAMETERS = "parameters"


@dataclass(frozen=True, slots=True)
class Setting:
    """A number: that of the first of our patterns that a module matches, or `otherwise`."""

    cases: Mapping[str, float] = field(default_factory=dict)
    otherwise: float | None = None

    @property
    def lowest(self) -> float:
        """The smallest that it may be; 0 if all are larger."""
        return min([0.0, *self.cases.values(), self.otherwise or 0.0])


class Reading:
    """A configuration, with what was wrong in it so far, and what was left out."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.errors: list[InputError] = []
        self.notes: list[str] = []

    def wrong(self, loc: Loc, what: str, *, expected: str = "", remedy: str = "") -> None:
        """Note a mistake at a place of the file, once: the top's values are read for each model."""
        where = self.document.where(self.document.path(loc))
        text = f"{dotted(loc)}: {what}" if loc else what
        error = InputError(text, where=where, expected=expected, remedy=remedy)
        if str(error) not in map(str, self.errors):
            self.errors.append(error)

    def left_out(self, loc: Loc, why: str) -> None:
        """Note what changes nothing here."""
        self.notes.append(f"{dotted(loc)} {why}, and is left out")

    def stop(self) -> None:
        """Raise what was wrong: InputError, or ManyErrors."""
        if self.errors:
            raise self.errors[0] if len(self.errors) == 1 else ManyErrors(self.errors)

    def at(self, *loc: str | int) -> Any:  # noqa: ANN401 - as various as YAML is
        """The value at a place; None if there is none."""
        value: Any = self.document.values
        for step in loc:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int):
                value = value[step]
            else:
                return None
        return value

    def setting(self, name: str, scopes: Iterable[Loc]) -> Setting:
        """A parameter, looked for in one scope after the other: the first that holds counts."""
        cases: dict[str, float] = {}
        for scope in scopes:
            loc = (*scope, PARAMETERS, name)
            if self.at(*loc) is None:
                continue
            for place, chosen, value in self._conditions(loc, self.at(*loc)):
                of_all = chosen is None or chosen == "*"
                pattern = "" if of_all else self._pattern(place, chosen)
                numbers = self._by_layer(place, value)
                for layer, number in numbers if pattern is not None else ():
                    if layer or not of_all:
                        cases.setdefault(f"{layer}{pattern}", number)
                if of_all:
                    return Setting(cases, numbers[0][1] if numbers else None)
        return Setting(cases)

    def _by_layer(self, loc: Loc, value: object) -> list[tuple[str, float]]:
        """Patterns and numbers: one number for all, or a gradient, one for every layer.

        What lies outside the layers has the first one, as in mergekit. Empty after a mistake.
        """
        values = value if isinstance(value, list) else [value]
        found = [number for one in values if (number := self.number(loc, one)) is not None]
        if len(found) < len(values):
            return []
        if len(set(found)) == 1:
            return [("", found[0])]
        steps = self._layers(loc) - 1
        return [
            (f"*layers.{layer}.*", _between(found, layer / steps if steps else 1.0))
            for layer in range(steps + 1)
        ]

    def _layers(self, loc: Loc) -> int:
        """How many layers the base has, by its configuration; 0 after a mistake."""
        base = str(self.at("base_model") or self.at("models", 0, "model")).partition("+")[0]
        path = Path(base) / "config.json"
        try:
            config = parse_json(read_bytes(path))
            return int({**config, **config.get("text_config", {})}["num_hidden_layers"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.wrong(
                loc,
                "a gradient over the layers needs their number",
                expected=f"the base model's configuration at '{path}'",
                remedy="fetch the base, or give one number, or filters such as "
                "{filter: layers.3., value: 0.5}",
            )
            return 0

    def number(self, loc: Loc, value: object) -> float | None:
        """A number, also one that YAML 1.1 takes for text, such as 1e-3."""
        try:
            found = float(value) if isinstance(value, int | float | str) else math.nan
        except ValueError:
            found = math.nan
        if math.isfinite(found):
            return found
        self.wrong(loc, f"{value!r} is no number", expected="a number")
        return None

    def flag(self, name: str, *, default: bool) -> bool:
        """A truth value of the whole merge."""
        value = self.at(PARAMETERS, name)
        if value is None:
            return default
        if str(value).lower() not in FLAGS:
            what = f"{value!r} is no truth value of the whole merge"
            self.wrong((PARAMETERS, name), what, expected="true or false")
        return FLAGS.get(str(value).lower(), default)

    def _conditions(self, loc: Loc, value: object) -> Iterator[tuple[Loc, object, object]]:
        """(place, filter, value) of each entry of a setting."""
        if isinstance(value, dict):
            yield loc, value.get("filter"), value.get("value")
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            for number, one in enumerate(value):
                yield from self._conditions((*loc, number), one)
        elif value != []:
            yield loc, None, value

    def _pattern(self, loc: Loc, chosen: object) -> str | None:
        """Our pattern of modules for a filter, which is a part of a tensor's name."""
        text = str(chosen)
        part = text.removesuffix(SUFFIX)
        if not part or NO_PATTERN & set(part) or SUFFIX[1:] in part:
            expected = "a part of a module's name, such as mlp or layers.3."
            self.wrong(loc, f"the filter '{text}' cannot be kept", expected=expected)
            return None
        return f"*{part}" if text.endswith(SUFFIX) else f"*{part}*"


def _between(values: Sequence[float], t: float) -> float:
    """The value at t of 0 to 1 on the line through these, which are equally far apart."""
    place = t * (len(values) - 1)
    before = min(int(place), len(values) - 2)
    share = place - before
    return (1 - share) * values[before] + share * values[before + 1]
