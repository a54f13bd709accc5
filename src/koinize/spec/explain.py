"""pydantic's list of errors -> ours, in plain words, without those that only follow from others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from koinize.errors import InputError, did_you_mean, nearest
from koinize.spec.document import Document, Loc, dotted
from koinize.spec.shape import PATTERNS, Spec
from koinize.tasks import tasks

Details = Any
"""pydantic's ErrorDetails: a mapping of type, loc, msg, input and, for some types, ctx."""

EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "date_from_datetime_inexact": "a date such as 2026-01-31",
    "date_from_datetime_parsing": "a date such as 2026-01-31",
    "date_parsing": "a date such as 2026-01-31",
    "date_type": "a date such as 2026-01-31",
    "decimal_parsing": "a number",
    "decimal_type": "a number",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number from {ge:g} up",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number up to {le:g}",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "string_pattern_mismatch": "{pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "some text",
    "string_type": "text",
    "too_short": "{min_length} or more entries",
    "tuple_type": "a list",
}
"""Words for pydantic's error types, filled in from their `ctx`."""

SHOWN_CHARACTERS = 60


def explain(document: Document, mistakes: Iterable[Details]) -> Iterator[tuple[Loc, InputError]]:
    """Our errors, each with the path in the file at which it is reported."""
    located = [(_path(document, one), one) for one in mistakes]
    roots = [pair for pair in located if not _follows(*pair, [path for path, _ in located])]
    misspelt = {
        (*path[:-1], nearest(str(path[-1]), _known_keys(document, one["loc"][:-1])))
        for path, one in roots
        if one["type"] == "extra_forbidden"
    }
    grouped: dict[tuple[Loc, str], list[Details]] = {}
    for path, one in roots:
        if one["type"] == "missing" and path in misspelt:
            continue  # it is there, under the misspelt name
        if one["type"] in EXPECTED:  # the branches of a union each had their say on one value
            grouped.setdefault((path, repr(one["input"])), []).append(one)
        else:
            yield document.path(path), _explain_one(document, path, one)
    for (path, _), alike in grouped.items():
        yield path, _explain_value(document, path, alike)


def _path(document: Document, mistake: Details) -> Loc:
    loc: Loc = mistake["loc"]
    if mistake["type"] == "missing":
        return (*document.path(loc[:-1]), loc[-1])
    return document.path(loc)


def _follows(path: Loc, mistake: Details, paths: Iterable[Loc]) -> bool:
    """Whether a value was refused only because something inside it was."""
    inside = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
    return inside and mistake["type"] in EXPECTED


def _explain_one(document: Document, path: Loc, mistake: Details) -> InputError:
    where = document.where(document.path(path))
    inside = f" in {dotted(path[:-1])}" if path[:-1] else ""
    match mistake["type"]:
        case "extra_forbidden":
            remedy = did_you_mean(str(path[-1]), _known_keys(document, mistake["loc"][:-1]))
            return InputError(f"unknown key '{path[-1]}'{inside}", where=where, remedy=remedy)
        case "missing":
            remedy = f"add '{path[-1]}: ...'"
            return InputError(f"missing key '{path[-1]}'{inside}", where=where, remedy=remedy)
    said = mistake["msg"].removeprefix("Value error, ")
    return InputError(f"{dotted(path)}: {said}" if path else said, where=where)


def _explain_value(document: Document, path: Loc, alike: list[Details]) -> InputError:
    value = alike[0]["input"]
    phrases = list(dict.fromkeys(_expected(one) for one in alike))
    remedy = ""
    if isinstance(value, str | int | float):
        if "a list" in phrases:
            remedy = f"write [{value}]"
        elif "text" in phrases:
            remedy = f'write "{value}"'
    context = alike[-1].get("ctx", {})
    given = f"not {context['actual_length']}" if "actual_length" in context else _given(value)
    what = f"{dotted(path)}: expected {' or '.join(phrases)}, {given}"
    return InputError(what, where=document.where(path), remedy=remedy)


def _expected(mistake: Details) -> str:
    context = dict(mistake.get("ctx", {}))
    if "pattern" in context:
        context["pattern"] = PATTERNS[context["pattern"]]
    return EXPECTED[mistake["type"]].format(**context)


def _given(value: object) -> str:
    match value:
        case None:
            return "but there is nothing"
        case str():
            return f"not {value[:SHOWN_CHARACTERS]!r}"
        case dict():
            return "not a mapping"
        case list() | tuple():
            return "not a list"
        case _:
            return f"not {value}"


def _known_keys(document: Document, loc: Loc) -> set[str]:
    """The keys that the model at a validator's location has."""
    kinds: list[object] = [Spec]
    for depth, step in enumerate(loc):
        kinds = [inner for kind in kinds for inner in _inside(kind, step)]
        if depth == 1 and loc[0] == "tasks":
            kinds = [tasks.get(document.values["tasks"][step]["kind"])]
    return {name for kind in kinds for model in _models(kind) for name in model.model_fields}


def _inside(kind: object, step: str | int) -> list[object]:
    """The types that may stand behind this step into a value of this type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(step))
        return [field.annotation] if field else []
    arguments = [one for one in get_args(kind) if one is not Ellipsis]
    if get_origin(kind) in (Union, UnionType):
        return [inner for one in arguments for inner in _inside(one, step)]
    if hasattr(kind, "__metadata__"):  # Annotated
        return _inside(arguments[0], step)
    return arguments[-1:]


def _models(kind: object) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for one in get_args(kind) for model in _models(one)]
