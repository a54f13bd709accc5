"""Reading a `koinize.yaml`: every mistake at once, each with its line, column and remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from koinize.errors import InputError, ManyErrors, did_you_mean
from koinize.spec.shape import VERSION, Spec
from koinize.tasks import tasks

SPEC_FILE = "koinize.yaml"

Loc = tuple[str | int, ...]


def load(path: Path) -> Spec:
    """The specification in this file.

    Raises InputError (one mistake) or ManyErrors (several, all found in one pass).
    """
    document = _parse(path)
    _check_version(document, path)
    try:
        return Spec.model_validate(_plain(document))
    except ValidationError as error:
        found = [_explain(path, document, one) for one in error.errors(include_url=False)]
        unique = list({str(one): one for one in found}.values())
        raise (unique[0] if len(unique) == 1 else ManyErrors(unique)) from error


def schema() -> dict[str, Any]:
    """The JSON Schema of koinize.yaml, with every known task kind."""
    whole = Spec.model_json_schema(ref_template="#/$defs/{model}")
    kinds = []
    for name in tasks.names():
        kind = tasks.get(name).model_json_schema(ref_template="#/$defs/{model}")
        whole["$defs"].update(kind.pop("$defs", {}))
        whole["$defs"][kind["title"]] = kind
        kinds.append({"$ref": f"#/$defs/{kind['title']}"})
    whole["properties"]["tasks"]["additionalProperties"] = {"oneOf": kinds}
    whole["$defs"].pop("Task", None)
    return whole


def _parse(path: Path) -> Mapping[str, Any]:
    try:
        document = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "run `koinize init` to write a first one, or name one with --spec"
        raise InputError("there is no such file", where=str(path), remedy=remedy) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path.name}:{mark.line + 1}:{mark.column + 1}" if mark else path.name
        what = " ".join((error.problem or "it is malformed").split())
        raise InputError(f"is not YAML: {what}", where=where, remedy="mend this line") from error
    if not isinstance(document, Mapping):
        raise InputError("is not a mapping", where=f"{path.name}:1:1", expected="keys and values")
    return document


def _check_version(document: Mapping[str, Any], path: Path) -> None:
    version = document.get("koinize", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"koinize: {version} is a newer format than this koinize reads ({VERSION})",
            where=_position(path, document, ("koinize",)),
            remedy="upgrade koinize",
        )


def _plain(node: object) -> Any:  # noqa: ANN401
    """The document without its line numbers: plain dicts, lists and scalars."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(item) for item in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            # ruamel's scalar types carry formatting that pydantic's strict unions trip over
            return kind(node)
    return node


def _explain(path: Path, document: Mapping[str, Any], error: Any) -> InputError:  # noqa: ANN401
    loc: Loc = error["loc"]
    where = _position(path, document, loc)
    place = _dotted(loc[:-1], document)
    inside = f" in {place}" if place else ""
    match error["type"]:
        case "extra_forbidden":
            remedy = did_you_mean(str(loc[-1]), _known_keys(loc[:-1], document))
            return InputError(f"unknown key '{loc[-1]}'{inside}", where=where, remedy=remedy)
        case "missing":
            return InputError(
                f"missing key '{loc[-1]}'{inside}", where=where, remedy=f"add '{loc[-1]}: ...'"
            )
    what = error["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    dotted = _dotted(loc, document)
    given = error["input"]
    if isinstance(given, str | int | float | bool) and repr(given) not in what:
        what = f"{what}, not {given!r}"
    return InputError(f"{dotted}: {what}" if dotted else what, where=where)


def _steps(document: object, loc: Loc) -> Iterator[tuple[object, str | int]]:
    """The (parent, key) pairs of loc that exist in the document; validation adds others."""
    node = document
    for key in loc:
        if isinstance(node, Mapping) and key in node:
            yield node, key
            node = node[key]
        elif isinstance(node, Sequence) and isinstance(key, int) and key < len(node):
            if isinstance(node, str):
                continue
            yield node, key
            node = node[key]


def _position(path: Path, document: Mapping[str, Any], loc: Loc) -> str:
    line = column = 0
    for parent, key in _steps(document, loc):
        marks = parent.lc.data  # type: ignore[attr-defined]
        if key in marks:
            line, column = marks[key][:2]
    return f"{path.name}:{line + 1}:{column + 1}"


def _dotted(loc: Loc, document: Mapping[str, Any]) -> str:
    text = ""
    for _, key in _steps(document, loc):
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def _known_keys(loc: Loc, document: Mapping[str, Any]) -> set[str]:
    """The keys that the model at this place has."""
    kinds: list[object] = [Spec]
    node: object = document
    for key in loc:
        node = node.get(key, {}) if isinstance(node, Mapping) else node
        kinds = [inner for kind in kinds for inner in _inside(kind, key)]
    if len(loc) == 2 and loc[0] == "tasks" and isinstance(node, Mapping):
        return set(tasks.get(str(node.get("kind"))).model_fields)
    return {name for kind in kinds for model in _models(kind) for name in model.model_fields}


def _inside(kind: object, key: str | int) -> list[object]:
    """The types that may stand behind this key of a value of this type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(key))
        return [field.annotation] if field else []
    arguments = [one for one in get_args(kind) if one is not Ellipsis]
    if get_origin(kind) in (Union, UnionType):
        return [inner for one in arguments for inner in _inside(one, key)]
    if hasattr(kind, "__metadata__"):  # Annotated
        return _inside(arguments[0], key)
    return arguments[-1:]


def _models(kind: object) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for one in get_args(kind) for model in _models(one)]
