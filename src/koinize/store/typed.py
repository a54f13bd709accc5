"""One reader for everything that koinize wrote: JSON, then the types that the record has.

A digest says that a record is as somebody wrote it, not that koinize did. So what is read is
checked field by field before anybody uses it, and what is missing or of another kind is named.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from koinize.errors import KoinizeError
from koinize.files import parse_json, read_bytes

T = TypeVar("T")

MOST_SECONDS = 1e12  # 30,000 years

Identity = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS)]
Sum = Annotated[float, Field(ge=0, le=1e60)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.parts == () or "\0" in name:
        raise ValueError("is no path inside the folder")
    return name


Inside = Annotated[str, AfterValidator(_inside)]
"""The path of a file from its folder on, which leads to nowhere else."""


def typed(
    kind: type[T],
    value: object,
    *,
    where: str = "",
    remedy: str = "",
    error: type[KoinizeError] = KoinizeError,
) -> T:
    """The value as this kind of record: a dataclass, a TypedDict or a plain type.

    Raises `error` that names `where` and the field, and says what was expected there.
    """
    try:
        reader: Any = _reader(kind)  # type: ignore[arg-type]
        found: T = reader.validate_python(value)
        return found
    except ValidationError as mistake:
        first = mistake.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        what = f"its field '{field}': {said}" if field else f"it is no such record: {said}"
        raise error(what, where=where, remedy=remedy) from None
    except UnicodeEncodeError:
        what = "it holds half a character (a lone surrogate)"
        raise error(what, where=where, remedy=remedy) from None


def typed_lines(
    kind: type[T], path: Path, *, remedy: str, error: type[KoinizeError] = KoinizeError
) -> list[T]:
    """The records in a file of one JSON object a line. Raises `error` that names the line."""
    found = []
    # Not splitlines(): a text may hold U+2028, which JSON leaves as it is.
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        if not line:
            continue
        where = f"{path}:{number}"
        try:
            value = parse_json(line)
        except ValueError:
            raise error("is not JSON", where=where, remedy=remedy) from None
        found.append(typed(kind, value, where=where, remedy=remedy, error=error))
    return found


def fitting(kind: type[T], value: object) -> T | None:
    """The same of what is only remembered: None for what is of another kind."""
    try:
        return typed(kind, value)
    except KoinizeError:
        return None


@lru_cache
def _reader(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type has no type of its own
    return TypeAdapter(kind)
