"""What the words of a command line stand for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from koinize.errors import InputError

NUMBERS = (int, float)


def key_values(given: Iterable[str], form: str) -> dict[str, str]:
    """KEY=VALUE, each key once. Raises InputError, which says that `form` was expected."""
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"'{text}' cannot be read", expected=form)
        if key in found:
            raise InputError(f"'{key}' is given twice", expected=f"each once, as {form}")
        found[key] = value
    return found


def number_or_word(text: str) -> Any:  # noqa: ANN401
    """What a shell's text stands for, in a place where both are possible."""
    for kind in NUMBERS:
        try:
            return kind(text)
        except ValueError:
            continue
    return text
