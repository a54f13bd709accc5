"""Numbers in a text, by value as far as their writing tells it in every language.

Digits of any script count. Between groups of three a comma, full stop, apostrophe or a space that
does not break is a thousands separator; any other comma or full stop between digits is a decimal
mark. So 1,234 and 1.234 and 1'234 are one number, as 3,50 and 3.5 are. Signs, units and words for
numbers are no part of it.
"""

from __future__ import annotations

import re
import unicodedata

_SPACES = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_NUMBER = re.compile(
    r"[1-9][0-9]{0,2}([.,'\u2019])[0-9]{3}(?:\1[0-9]{3})*(?![0-9])(?:(?!\1)[.,][0-9]+)?"
    r"|[0-9]+(?:[.,][0-9]+)?"
)


_ARABIC = str.maketrans("\u066b\u066c", ".,")


def numbers(text: str) -> list[str]:
    """The numbers of a text in their order, each in one writing: 1.234,50 is 1234.5."""
    plain = "".join(map(_digit, text.translate(_ARABIC)))
    plain = unicodedata.normalize("NFKC", _SPACES.sub("'", plain))
    return [_value(match[0], match[1] or "") for match in _NUMBER.finditer(plain)]


def _digit(character: str) -> str:
    if unicodedata.category(character) == "No":  # NFKC would make 102 of 10², and 11/2 of 1½
        return " "
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _value(written: str, separator: str) -> str:
    if separator:
        written = written.replace(separator, "")
    whole, _, rest = written.replace(",", ".").partition(".")
    rest = rest.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{rest}" if rest else "")
