"""YAML from a stranger: how much of it there may be, and what it may not say.

YAML can name a piece and repeat it, also within itself; it can choose Python's types by tags, and
an older version of itself in which `no` is false. All that is looked for in the parser's events,
before anything is built from them.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from koinize.errors import InputError

MOST_VALUES = 100_000  # once every alias stands for what it repeats
DEEPEST = 40
PREFIX = "tag:yaml.org,2002:"
FITTING = {
    "str": re.compile(r"(?s).*"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "null": re.compile(r"null|Null|NULL|~|"),
}
"""The tags of YAML's core, and the scalars that they may stand before."""

Event = Any
"""ruamel's own classes say nothing about their types."""


def refuse_unbounded(text: str, name: str) -> None:
    """Raise InputError for nesting, repetition or tags that no specification needs.

    Raises what ruamel raises for what is no YAML.
    """
    counting = _Counting(name)
    for event in YAML(typ="safe", pure=True).parse(text):
        counting.take(event)


class _Counting:
    """How many values the open lists and mappings hold, and those that an anchor names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open: list[int] = [0]
        self.anchors: list[str | None] = []
        self.sizes: dict[str, int] = {}

    def take(self, event: Event) -> None:
        if isinstance(event, AliasEvent):
            self._add(event, self._repeated(event))
        elif isinstance(event, ScalarEvent):
            self._refuse_tag(event)
            self._name(event.anchor, 1)
            self._add(event, 1)
        elif isinstance(event, SequenceStartEvent | MappingStartEvent):
            self._refuse_tag(event)
            self.open.append(1)
            self.anchors.append(event.anchor)
            self._name(event.anchor, 0)  # until it ends: within itself it has no size
            if len(self.open) > DEEPEST:
                raise self._refused(event, "this is nested too deeply", f"{DEEPEST - 1} levels")
        elif isinstance(event, SequenceEndEvent | MappingEndEvent):
            size = self.open.pop()
            self._name(self.anchors.pop(), size)
            self._add(event, size)

    def _name(self, anchor: str | None, size: int) -> None:
        if anchor:
            self.sizes[anchor] = size

    def _repeated(self, event: Event) -> int:
        size = self.sizes.get(event.anchor, 1)  # an unknown one is the parser's to refuse
        if not size:
            raise InputError(
                f"'*{event.anchor}' stands within what it names", where=self._where(event)
            )
        return size

    def _add(self, event: Event, size: int) -> None:
        self.open[-1] += size
        if self.open[-1] > MOST_VALUES:
            expected = f"{MOST_VALUES:,} values, those that aliases repeat among them"
            raise self._refused(event, "this says too much", expected)

    def _refuse_tag(self, event: Event) -> None:
        tag = str(event.tag or "!")
        name = tag.removeprefix(PREFIX)
        if isinstance(event, ScalarEvent):
            known = tag == "!" or name in FITTING
            fits = name not in FITTING or FITTING[name].fullmatch(event.value)
        else:
            known, fits = tag == "!" or name in ("map", "seq"), True
        if not known:
            what = f"the tag '{tag.replace(PREFIX, '!!')}' means nothing here"
            raise InputError(what, where=self._where(event), remedy="remove it")
        if not fits:
            what = f"'{event.value}' is no !!{name}"
            raise InputError(what, where=self._where(event), remedy="remove the tag")

    def _refused(self, event: Event, what: str, expected: str) -> InputError:
        return InputError(what, where=self._where(event), expected=f"at most {expected}")

    def _where(self, event: Event) -> str:
        mark = event.start_mark
        return f"{self.name}:{mark.line + 1}:{mark.column + 1}"
