"""The part of JSON Schema (draft 2020-12) that koinize writes, checked the slow and obvious way."""

from __future__ import annotations

import re

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}

ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "format"}


def faults(value, schema, root) -> list[str]:
    """What is wrong with a value; an unknown keyword of the schema is a KeyError."""
    found = []
    for keyword, says in schema.items():
        if keyword not in ANNOTATIONS:
            found += CHECKS[keyword](value, says, schema, root)
    return found


def _reference(value, says, _, root):
    return faults(value, root["$defs"][says.removeprefix("#/$defs/")], root)


def _type(value, says, *_):
    fits = isinstance(value, TYPES[says])
    if isinstance(value, bool) and says in ("integer", "number"):
        fits = False
    return [] if fits else [f"{value!r} is no {says}"]


def _required(value, says, *_):
    return [f"{key} is missing" for key in says if isinstance(value, dict) and key not in value]


def _properties(value, says, _, root):
    items = value.items() if isinstance(value, dict) else ()
    return [fault for key, item in items if key in says for fault in faults(item, says[key], root)]


def _patterns(value, says, _, root):
    items = value.items() if isinstance(value, dict) else ()
    return [
        fault
        for key, item in items
        for pattern, schema in says.items()
        if re.search(pattern, key)
        for fault in faults(item, schema, root)
    ]


def _additional(value, says, schema, root):
    if not isinstance(value, dict):
        return []
    named = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    found = []
    for key, item in value.items():
        if key in named or any(re.search(pattern, key) for pattern in patterns):
            continue
        if says is False:
            found.append(f"{key} is unknown")
        elif says is not True:
            found += faults(item, says, root)
    return found


def _names(value, says, _, root):
    return [fault for key in value for fault in faults(key, says, root)]


def _items(value, says, _, root):
    items = value if isinstance(value, list) else []
    return [fault for item in items for fault in faults(item, says, root)]


def _any(value, says, _, root):
    each = [faults(value, one, root) for one in says]
    return [] if [] in each else [f"{value!r} fits none: {each}"]


def _one(value, says, _, root):
    fitting = [one for one in says if not faults(value, one, root)]
    return [] if len(fitting) == 1 else [f"{value!r} fits {len(fitting)} of {len(says)}"]


def _bound(kind, fits):
    def check(value, says, *_):
        applies = isinstance(value, kind) and not isinstance(value, bool)
        return [f"{value!r} against {says}"] if applies and not fits(value, says) else []

    return check


NUMBER = (int, float)
CHECKS = {
    "$ref": _reference,
    "type": _type,
    "enum": lambda value, says, *_: [] if value in says else [f"{value!r} is none of {says}"],
    "const": lambda value, says, *_: [] if value == says else [f"{value!r} is not {says!r}"],
    "required": _required,
    "properties": _properties,
    "patternProperties": _patterns,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "items": _items,
    "anyOf": _any,
    "oneOf": _one,
    "pattern": _bound(str, lambda value, says: re.search(says, value)),
    "minLength": _bound(str, lambda value, says: len(value) >= says),
    "maxLength": _bound(str, lambda value, says: len(value) <= says),
    "minItems": _bound(list, lambda value, says: len(value) >= says),
    "minProperties": _bound(dict, lambda value, says: len(value) >= says),
    "maxProperties": _bound(dict, lambda value, says: len(value) <= says),
    "minimum": _bound(NUMBER, lambda value, says: value >= says),
    "maximum": _bound(NUMBER, lambda value, says: value <= says),
    "exclusiveMinimum": _bound(NUMBER, lambda value, says: value > says),
    "exclusiveMaximum": _bound(NUMBER, lambda value, says: value < says),
}
