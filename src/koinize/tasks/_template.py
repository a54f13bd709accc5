"""Templates: `{name}` stands for a value, `{{` and `}}` for braces, and there is nothing else.

`str.format` is not used: its `{a.b[c]!r:>9}` would reach into objects and refuse ordinary names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

PIECES = re.compile(r"(?P<escape>\{\{|\}\})|\{(?P<name>[^{}]+)\}|(?P<stray>[{}])")


@lru_cache(maxsize=1024)
def parse(template: str) -> tuple[tuple[str, str], ...]:
    """The template as (text, name) pairs: a text, then a value; the last name is empty.

    Raises ValueError for a brace that neither names a value nor is doubled.
    """
    pairs: list[tuple[str, str]] = []
    text, end = "", 0
    for piece in PIECES.finditer(template):
        text += template[end : piece.start()]
        end = piece.end()
        if piece["stray"]:
            raise ValueError(
                f"the '{piece['stray']}' at character {piece.start() + 1} of the template stands "
                f"alone; write {{name}} for a value and '{piece['stray'] * 2}' for a brace"
            )
        if piece["escape"]:
            text += piece["escape"][0]
        else:
            pairs.append((text, piece["name"]))
            text = ""
    return (*pairs, (text + template[end:], ""))


def names(template: str) -> tuple[str, ...]:
    """The names in a template, each once, in their order. Raises ValueError as `parse` does."""
    return tuple(dict.fromkeys(name for _, name in parse(template) if name))


def render(template: str, values: Mapping[str, str]) -> str:
    """The template with its values; they are not parsed again. Raises KeyError."""
    return "".join(text + (values[name] if name else "") for text, name in parse(template))
