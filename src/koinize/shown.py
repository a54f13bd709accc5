"""Text from outside as data: escaped and shortened for the medium that shows it.

A name, a label or a message may come from a stranger's file. What it holds must not move a cursor,
open a tag, begin a table or a formula, or fill a screen. Every medium has its function here: a
terminal or a log (`message`, `line`), Markdown, a CSV cell, JSON. HTML has Jinja's own escaping.
"""

from __future__ import annotations

import json
import re

LONGEST_LINE = 1000  # characters of one line of a message
LONGEST_NAME = 200  # characters of a name within a sentence

# Control characters but the line break and the tab, the marks that turn the order of what follows,
# the separators that some readers take for line breaks, and halves of characters.
UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
BREAKS = re.compile(r"[\t\n]")
# What acts within a line of Markdown: an underscore inside a word and an ampersand before
# anything but the name of a character do not.
MARKDOWN = re.compile(r"[\\`<>\[\]*]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|&(?=[#A-Za-z])")
# What begins a block: a heading, an item, a fence, or an item with a number, by its last character.
BLOCK = re.compile(r"\A(\d{0,9})([#+=~.)-])")
FORMULA = re.compile(r"[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
TOKEN = re.compile(
    r"(?i)(?<=[?&;])([\w.-]*(?:token|key|password|passwd|secret|sig|signature|credential)=)"
    r"[^&;#\s'\"]+"
)


def escaped(text: str) -> str:
    """The text with everything that a terminal would obey as `\\u001b`, which in JSON means it."""
    return UNSHOWABLE.sub(_code, text)


def message(text: str) -> str:
    """Lines for a terminal or a log: escaped, without secrets, each of a length to be read."""
    return "\n".join(_cut(one, LONGEST_LINE) for one in escaped(without_secrets(text)).split("\n"))


def line(text: str, longest: int = LONGEST_NAME) -> str:
    """The same in one line: a name, say."""
    return _cut(BREAKS.sub(_code, escaped(without_secrets(text))), longest)


def markdown(text: str) -> str:
    """One line of Markdown that reads as the text: no tag, link, table, code, heading or list."""
    inert = MARKDOWN.sub(r"\\\g<0>", line(text, LONGEST_LINE)).replace("|", "&#124;")
    return BLOCK.sub(r"\1\\\2", inert.strip(" "))


def code(text: str) -> str:
    """A text as code in Markdown."""
    return f"`{line(text, LONGEST_LINE).replace('`', chr(39))}`"


def csv_cell(text: str) -> str:
    """A cell that a spreadsheet takes for text, also where it begins like a formula."""
    shown = escaped(without_secrets(text))
    is_formula = FORMULA.match(text) and not NUMBER.fullmatch(text)
    return f"'{shown}" if is_formula else shown


def json_text(value: object, *, indent: int | None = None) -> str:
    """JSON that may stand in Markdown: no character of it ends a code block or opens a tag."""
    text = json.dumps(value, indent=indent, sort_keys=indent is not None, ensure_ascii=False)
    return escaped(text).replace("<", "\\u003c").replace("`", "\\u0060")


def without_secrets(text: str) -> str:
    """The text with `***` for the name and password, and for the keys, in its URLs."""
    return TOKEN.sub(r"\g<1>***", LOGIN.sub("***", text)) if "://" in text else text


def _code(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _cut(text: str, longest: int) -> str:
    """A long text without its middle, which is replaced by how long it was."""
    if len(text) <= longest:
        return text
    half = longest // 2 - 20
    return f"{text[:half]} ... ({len(text)} characters) ... {text[-half:]}"
