"""How an option of a merge is declared: once, with what every place that names it has to know.

And which modules it is for, how its value is shown, and a wrong one spoken of.
"""

from __future__ import annotations

from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, Field


class Trait(Enum):
    """What holds of an option whatever the recipe is."""

    COMMON = "every recipe has it"
    LOCAL = "it may differ from module to module"
    SPARSIFYING = "only sparsifiers read it, and at density 1 all of them are idle"


COMMON, LOCAL, SPARSIFYING = Trait


def option(
    meaning: str,
    *traits: Trait,
    default: Any = ...,  # noqa: ANN401 - as various as the options are
    **limits: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - as pydantic's own
    """A field of a settings model. Of an empty mapping as a default each instance has its own."""
    field = Field(default, description=meaning, **limits)
    field.metadata += traits
    return field


def having(model: type[BaseModel], trait: Trait) -> frozenset[str]:
    """The options of a model of which this holds."""
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if trait in field.metadata)


def matches(pattern: str, module: str) -> bool:
    """Whether a glob matches a module's dotted name or its end, at a dot, or spells it."""
    if f".{module}".endswith(f".{pattern}"):  # a name may have brackets: `experts[3]`
        return True
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")


def in_a_sentence(detail: object) -> str:
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


def brief(value: object) -> str:
    """The value of an option in a table's title: `2`, `ja=2,zh=0.5`, or of groups `de+en,ja`."""
    if isinstance(value, dict):
        return ",".join(f"{key}={brief(item)}" for key, item in value.items())
    if isinstance(value, tuple):
        return ",".join("+".join(group) for group in value)
    return shortest_decimal(value) if isinstance(value, float) else str(value)


def shortest_decimal(number: float) -> str:
    """The shortest decimal that is this number; whole ones without a point."""
    return repr(float(number)).removesuffix(".0")
