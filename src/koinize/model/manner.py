"""How a base model is given texts, as its files tell it: a part of what is trained on it.

Most base models take plain text whose tokens do not depend on what stands before it, and for these
nothing has changed since the first version. Where a chat template renders the text, or a tokenizer
puts a space before the first word of each text, a number counts the ways that koinize did it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koinize.errors import InputError
from koinize.files import (
    LARGEST_TEXT,
    MEGABYTE,
    open_regular,
    parse_json,
    read_bytes,
    refuse_depth,
)

ENCODING = "encoding"
"""What a step calls it, among its inputs and its settings."""

CHAT, FIRST_SPACE = 2, 2
"""Raised by whoever changes the text or the tokens that a base model gets that has a chat template,
or whose tokenizer puts spaces first.
"""


@dataclass(frozen=True)
class Manner:
    """Whether a tokenizer has a chat template, and whether it puts spaces before first words."""

    is_chat: bool = False
    prefixes: bool = False

    def settings(self, template: Mapping[str, object]) -> dict[str, Any]:
        """What determines the texts beside the rows and the base model; empty for plain text.

        `template` are the arguments of the chat template.
        """
        if self.is_chat:
            return {"chat": CHAT} | ({"template": dict(template)} if template else {})
        return {"first space": FIRST_SPACE} if self.prefixes else {}


PLAIN = Manner()


def manner(folder: Path) -> Manner:
    """The manner of the tokenizer in this folder. What cannot be read is taken for plain."""
    return Manner(bool(_template(folder)), _prefixes(folder))


def check_arguments(arguments: Iterable[str], template: str) -> None:
    """Raise InputError for arguments that this chat template, empty if there is none, ignores."""
    for name in arguments:
        if not template:
            raise InputError(
                "the base model has no chat template",
                where="base.template",
                remedy="remove base.template, or choose a chat model",
            )
        if not re.search(rf"\b{re.escape(name)}\b", template):
            what = f"the chat template knows no '{name}'"
            raise InputError(what, where="base.template", expected="variables that it names")


def check_folder(arguments: Iterable[str], folder: Path) -> None:
    """The same for the template in the folder of a base model."""
    check_arguments(arguments, _template(folder))


def template_of(folder: Path) -> str:
    """The chat template that a conversation gets; of several, the one that is called default."""
    text = _template(folder)
    with suppress(ValueError, TypeError, KeyError):
        named = {one["name"]: one["template"] for one in parse_json(text)}
        return str(named.get("default", ""))
    return text


def _template(folder: Path) -> str:
    """The chat template in the tokenizer's files; of several, all."""
    with suppress(OSError, ValueError):
        if text := read_bytes(folder / "chat_template.jinja", LARGEST_TEXT).decode("utf-8"):
            return text
    found = _json(folder / "tokenizer_config.json").get("chat_template") or ""
    return found if isinstance(found, str) else json.dumps(found)


def _prefixes(folder: Path) -> bool:
    try:
        head = _head(folder / "tokenizer.json")
    except (OSError, ValueError):
        return (folder / "tokenizer.model").exists()  # SentencePiece's own file: most do
    parts = [_value(head, name) for name in ("normalizer", "pre_tokenizer")]
    return any(_puts_space(one) for part in parts for one in _objects(part))


def _head(path: Path) -> str:
    """What stands before the decoder. The vocabulary behind it has megabytes, and is not read."""
    mark, head = b'"decoder":', bytearray()
    with open_regular(path) as file:
        while (end := head.find(mark)) < 0 and (more := file.read(MEGABYTE)):
            head += more
    return head[: end if end >= 0 else None].decode("utf-8", "replace")


def _value(text: str, name: str) -> object:
    """The value of this name in JSON; None where there is none."""
    if not (found := re.search(rf'"{name}":\s*', text)):
        return None
    with suppress(ValueError, RecursionError):
        value: object = json.JSONDecoder().raw_decode(text, found.end())[0]
        refuse_depth(value)
        return value
    return None


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    """The objects in a value, whatever they are nested in."""
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from _objects(one)
    elif isinstance(value, list):
        for one in value:
            yield from _objects(one)


def _puts_space(part: Mapping[str, Any]) -> bool:
    match part.get("type"):
        case "Prepend":
            return True
        case "Metaspace":
            default = "always" if part.get("add_prefix_space", True) else "never"
            return bool(part.get("prepend_scheme", default) != "never")
        case "ByteLevel":
            return bool(part.get("add_prefix_space"))
        case _:
            return False


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = parse_json(read_bytes(path, LARGEST_TEXT))
        return found if isinstance(found, dict) else {}
    return {}
