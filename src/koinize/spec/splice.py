"""Changes to the text of a YAML file that leave every other byte of it alone.

Dumping a parsed file keeps comments but not spacing, folding or quoting. So nothing is dumped: the
parser says where an entry begins and ends, and only that piece of the text changes. Each change is
parsed again and compared with what it should mean, so a file that is written too cleverly (an
anchor in the piece that goes, say) is refused, never damaged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from koinize.errors import InputError
from koinize.spec.document import Loc, dotted

Node = Any
"""A node of the parser's: ruamel's own classes say little about their types."""
Values = Any
"""Nested dicts and lists of text."""
Value = str | Mapping[str, str]
"""What can be written: a text, or a mapping of texts, which becomes `{a: b, c: d}`."""

ALONE = re.compile(r"[ \t]*(,?)[ \t]*(#[^\n]*)?\r?(\n|\Z)")
ALIAS = re.compile(r"\s*:\s*(\*[^\s,\]}]+)")
COLON = re.compile(r"\s*:")
COMMA = re.compile(r"(?:\s|#[^\n]*\n)*(,)")
GONE = object()


@dataclass(frozen=True)
class _Entry:
    """An item, or a key with its value: where it begins, and where its last character ends."""

    start: int
    end: int


@dataclass(frozen=True)
class YamlText:
    """The text of the file called `name`. Every change makes another one."""

    text: str
    name: str

    @cached_property
    def values(self) -> Values:
        """What the text means, as plain values."""
        return _meaning(self.text)

    @cached_property
    def _root(self) -> Node:
        return YAML(typ="safe", pure=True).compose(self.text)

    def raw(self, path: Loc) -> str:
        """A scalar as it is written, quotes included."""
        start, end, _ = self._value_span(path)
        return self.text[start:end]

    def is_flow(self, path: Loc) -> bool:
        """Whether a list or mapping is written in brackets."""
        return bool(self._node(path).flow_style)

    def has_comments(self, path: Loc) -> bool:
        """Whether a comment stands between or behind the entries of a list or mapping."""
        entries = self._entries(self._node(path))
        ends = [*(one.start for one in entries[1:]), self._line_end(entries[-1].end)]
        gaps = (self.text[one.end : end] for one, end in zip(entries, ends, strict=True))
        return any("#" in gap for gap in gaps)

    def append(self, path: Loc, item: str) -> YamlText:
        """Add a text at the end of a list."""
        node = self._node(path)
        like = self.text[node.value[-1].start_mark.index]
        piece = scalar(item, flow=bool(node.flow_style), like=like)
        return self._checked(self._with_entry(node, piece), path, [*_at(self.values, path), item])

    def put(self, path: Loc, key: str, value: Value, *, like: str = "") -> YamlText:
        """Add a key at the end of a mapping, its value quoted like the first letter of `like`."""
        node = self._node(path)
        flow = bool(node.flow_style)
        piece = f"{scalar(key, flow=flow)}: {written(value, flow=flow, like=like)}"
        return self._checked(self._with_entry(node, piece), (*path, key), value)

    def replace(self, path: Loc, value: Value, *, like: str = "") -> YamlText:
        """Put another value behind a key, quoted as the text before it was, or like `like`."""
        flow = self.is_flow(path[:-1])
        like = self.raw(path)[:1] if isinstance(self._node(path), ScalarNode) else like
        return self._with_value(path, written(value, flow=flow, like=like), value)

    def _with_value(self, path: Loc, piece: str, meaning: object) -> YamlText:
        start, end, space = self._value_span(path)
        return self._checked(self.text[:start] + space + piece + self.text[end:], path, meaning)

    def remove(self, path: Loc) -> YamlText:
        """Remove an item or a key, its line with it where it has one of its own.

        Where its parents hold nothing else, they go too.
        """
        while len(path) > 1 and len(self._node(path[:-1]).value) == 1:
            path = path[:-1]
        parent = self._node(path[:-1])
        entries, index = self._entries(parent), self._index(parent, path[-1])
        if parent.flow_style:
            text = self._without_in_brackets(entries, index)
        else:
            is_list = isinstance(parent, SequenceNode)
            text = self._without_in_block(entries, index, is_list=is_list)
        return self._checked(text, path, GONE)

    def spell_out(self, path: Loc, entries: Mapping[str, str]) -> YamlText:
        """Turn the text behind a key into a mapping with these keys and pieces of text.

        A comment behind the text stays behind the key.
        """
        meaning = {key: _meaning(raw) for key, raw in entries.items()}
        if self.is_flow(path[:-1]):
            inner = ", ".join(f"{scalar(key, flow=True)}: {raw}" for key, raw in entries.items())
            return self._with_value(path, f"{{{inner}}}", meaning)
        _, end, _ = self._value_span(path)
        line_end = self._line_end(end)
        text = self.text[: self._colon(path)] + self.text[end:line_end]
        text += self._lines(path, entries) + self.text[line_end:]
        return self._checked(text, path, meaning)

    def fold(self, path: Loc, piece: str) -> YamlText:
        """The way back from `spell_out`: this piece of text behind a key instead of a mapping."""
        if self.is_flow(path):
            return self._with_value(path, piece, _meaning(piece))
        _, end, _ = self._value_span(path)
        colon = self._colon(path)
        text = f"{self.text[:colon]} {piece}{self.text[colon : self._line_end(colon)]}"
        return self._checked(text + self.text[end:], path, _meaning(piece))

    def _lines(self, path: Loc, entries: Mapping[str, str]) -> str:
        """The entries as lines of a block, indented from their key as it is from its parent's."""
        column = self._pair(path)[0].start_mark.column
        above = self._pair(path[:-1])[0].start_mark.column if len(path) > 1 else 0
        indent = " " * (column + (column - above or 2))
        lines = (f"{indent}{scalar(key)}: {raw}" for key, raw in entries.items())
        return "".join(self._newline + line for line in lines)

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _with_entry(self, node: Node, piece: str) -> str:
        entries = self._entries(node)
        if not node.flow_style:
            return self._with_line(node, entries[-1], piece)
        if not entries:
            place = int(node.end_mark.index) - 1
            return f"{self.text[:place]}{piece}{self.text[place:]}"
        last = entries[-1]
        if own := self._own_line(last):
            begin, comma = own
            line_end = self._line_end(last.end)
            parted = ("" if comma else ",") + self.text[last.end : line_end]
            line = self._newline + self.text[begin : last.start] + piece + comma
            return self.text[: last.end] + parted + line + self.text[line_end:]
        gap = self.text[entries[-2].end : last.start] if len(entries) > 1 else ""
        gap = gap if re.fullmatch(r",[ \t]*", gap) else ", "
        return self.text[: last.end] + gap + piece + self.text[last.end :]

    def _with_line(self, node: Node, last: _Entry, piece: str) -> str:
        """The text with one more line at the end of a block."""
        begin = self._line_start(last.start)
        if isinstance(node, MappingNode):
            prefix = " " * int(node.value[0][0].start_mark.column)
        else:
            prefix = self.text[begin : last.start]
        place = self._line_end(last.end)
        return self.text[:place] + self._newline + prefix + piece + self.text[place:]

    def _without_in_brackets(self, entries: Sequence[_Entry], index: int) -> str:
        one = entries[index]
        before = entries[index - 1] if index else None
        after = entries[index + 1] if index + 1 < len(entries) else None
        if own := self._own_line(one):
            begin, comma = own
            end = self._line_end(one.end)
            end += len(self._newline) if end < len(self.text) else 0
            kept = self.text[:begin]
            if before and not after and not comma:  # the comma that parted the two
                found = COMMA.match(self.text, before.end)
                kept = kept[: found.start(1)] + kept[found.end(1) :] if found else kept
            return kept + self.text[end:]
        if before and not re.search(r"[#\n]", self.text[before.end : one.start]):
            return self.text[: before.end] + self.text[one.end :]
        if after and not re.search(r"[#\n]", self.text[one.end : after.start]):
            return self.text[: one.start] + self.text[after.start :]
        found = COMMA.match(self.text, one.end)
        end = found.end(1) if found else one.end
        return self.text[: one.start] + self.text[end:]

    def _without_in_block(self, entries: Sequence[_Entry], index: int, *, is_list: bool) -> str:
        one = entries[index]
        begin, end = self._line_start(one.start), self._line_end(one.end)
        if not is_list and self.text[begin : one.start].strip():
            # The first key of a list's item: the dash before it stays for the next one.
            return self.text[: one.start] + self.text[entries[1].start :]
        if end < len(self.text):
            return self.text[:begin] + self.text[end + len(self._newline) :]
        return self.text[: max(0, begin - len(self._newline))]

    def _own_line(self, entry: _Entry) -> tuple[int, str] | None:
        """Where the line begins on which an entry stands alone, and the comma behind it."""
        begin = self._line_start(entry.start)
        found = ALONE.match(self.text, entry.end)
        if self.text[begin : entry.start].strip() or not found:
            return None
        return begin, found[1]

    def _line_start(self, place: int) -> int:
        return self.text.rfind("\n", 0, place) + 1

    def _line_end(self, place: int) -> int:
        """Before the line break that follows, or the end of the text."""
        end = self.text.find("\n", place)
        end = len(self.text) if end < 0 else end
        return end - 1 if self.text[end - 1 : end] == "\r" else end

    def _colon(self, path: Loc) -> int:
        """Behind the colon of a key."""
        key, _ = self._pair(path)
        found = COLON.match(self.text, key.end_mark.index)
        if not found:
            raise self._refused(path)
        return found.end()

    def _entries(self, node: Node) -> list[_Entry]:
        if isinstance(node, MappingNode):
            return [
                _Entry(key.start_mark.index, self._end(key, value)) for key, value in node.value
            ]
        return [_Entry(one.start_mark.index, self._end(None, one)) for one in node.value]

    def _end(self, key: Node, value: Node) -> int:
        """Where the last character of a value ends: a block's own end is where the next begins."""
        if key is not None and value.start_mark.index < key.start_mark.index:
            found = ALIAS.match(self.text, key.end_mark.index)
            if not found:
                raise self._refused((key.value,))
            return found.end()
        if isinstance(value, ScalarNode):
            start, end = int(value.start_mark.index), int(value.end_mark.index)
            return start + len(self.text[start:end].rstrip())
        if value.flow_style:
            return int(value.end_mark.index)
        return self._entries(value)[-1].end

    def _value_span(self, path: Loc) -> tuple[int, int, str]:
        """Where the value of a key stands, and the space that another one needs before it."""
        key, value = self._pair(path)
        end = self._end(key, value)
        alias = value.start_mark.index < key.start_mark.index
        in_block = isinstance(value, MappingNode | SequenceNode) and not value.flow_style
        if alias or in_block or value.start_mark.index == end:
            return self._colon(path), end, " "
        return value.start_mark.index, end, ""

    def _pair(self, path: Loc) -> tuple[Node, Node]:
        node = self._node(path[:-1])
        found: tuple[Node, Node] = node.value[self._index(node, path[-1])]
        return found

    def _node(self, path: Loc) -> Node:
        node = self._root
        for step in path:
            entry = node.value[self._index(node, step)]
            node = entry[1] if isinstance(node, MappingNode) else entry
        return node

    def _index(self, node: Node, step: str | int) -> int:
        if isinstance(step, int):
            return step
        return next(n for n, (key, _) in enumerate(node.value) if key.value == step)

    def _checked(self, text: str, path: Loc, meaning: object) -> YamlText:
        """The changed text. Raises InputError unless just this changed in what it means."""
        expected = deepcopy(self.values)
        if meaning is GONE:
            del _at(expected, path[:-1])[path[-1]]
        else:
            _at(expected, path[:-1])[path[-1]] = meaning
        changed = YamlText(text, self.name)
        try:
            same = changed.values == expected
        except (YAMLError, ValueError):
            same = False
        if not same:
            raise self._refused(path)
        return changed

    def _refused(self, path: Loc) -> InputError:
        what = f"'{dotted(path)}' is written in a way that koinize cannot edit"
        return InputError(what, where=self.name, remedy="edit it by hand")


def scalar(value: str, *, flow: bool = False, like: str = "") -> str:
    """A text as YAML: quoted like the first letter of `like`, else plain where that means it."""
    if like == "'":
        return "'" + value.replace("'", "''") + "'"
    try:
        framed = f"[{value}]" if flow else f"- {value}"
        plain = YAML(typ="safe", pure=True).load(framed) == [value]
    except (YAMLError, ValueError):
        plain = False
    return value if plain and like != '"' else json.dumps(value, ensure_ascii=False)


def written(value: Value, *, flow: bool = False, like: str = "") -> str:
    """A text, or a mapping of texts in braces."""
    if isinstance(value, str):
        return scalar(value, flow=flow, like=like)
    inner = (f"{key}: {scalar(one, flow=True, like=like)}" for key, one in value.items())
    return f"{{{', '.join(inner)}}}"


def _at(values: Values, path: Loc) -> Values:
    for step in path:
        values = values[step]
    return values


def _meaning(piece: str) -> Values:
    """Its mappings and lists, with every scalar as the text that it is."""
    return YAML(typ="base", pure=True).load(piece)
