"""What a row says: its cells as text, and its prompt and answer where no template says how."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping

from koinize.data import Row, not_among
from koinize.errors import InputError

ROLES = (["user", "assistant"], ["system", "user", "assistant"])
WIDE = ("W", "F")
"""East Asian width classes of Chinese characters, kana and full-width punctuation."""


def value(row: Row, column: str, *, named_by: str) -> object:
    """The value in a column. Raises InputError for a column that is not there, or holds null."""
    if column not in row.columns:
        what = f"there is no column '{column}', which the {named_by} names"
        raise not_among(what, column, row.columns, where=row.where)
    if row.columns[column] is None:
        what = f"the column '{column}' is null"
        raise InputError(what, where=row.where, expected="text or a number")
    return row.columns[column]


def text(row: Row, column: str, *, named_by: str) -> str:
    """The value in a column as text. Raises InputError as `value` and `scalar` do."""
    return scalar(value(row, column, named_by=named_by), row, column)


def scalar(found: object, row: Row, column: str) -> str:
    """A value as text: numbers and truth values as JSON writes them. Raises InputError for more."""
    if isinstance(found, str):
        return found
    if isinstance(found, int | float):
        return json.dumps(found)
    kind = "an object" if isinstance(found, Mapping) else "a list"
    what = f"the column '{column}' holds {kind}"
    raise InputError(what, where=row.where, expected="text or a number")


def conversation(row: Row) -> tuple[str, str]:
    """Prompt and answer of a row of the form `messages`, or `prompt` and `completion`.

    A system message goes before the user's, with an empty line between. The answer is empty where
    a row with a `prompt` has no `completion`. Raises InputError for rows of any other form.
    """
    if "messages" in row.columns:
        *asked, answer = _contents(row)
        return "\n\n".join(asked), answer
    if "prompt" in row.columns:
        completion = "completion" in row.columns
        answer = text(row, "completion", named_by="task") if completion else ""
        return text(row, "prompt", named_by="task"), answer
    raise InputError(
        "the task has no prompt template for this row",
        where=row.where,
        expected="the columns 'messages', or 'prompt' and 'completion'",
        remedy='give the task a template, such as prompt: "{text}"',
    )


def _contents(row: Row) -> list[str]:
    messages = row.columns["messages"]
    fault = InputError(
        "the column 'messages' is not one question and its answer",
        where=row.where,
        expected="[{role: user, content: ...}, {role: assistant, content: ...}], "
        "with a system message first or without",
        remedy="make each answer of a longer conversation a row of its own",
    )
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise fault
    contents = [one.get("content") for one in messages]
    if [one.get("role") for one in messages] not in ROLES:
        raise fault
    if not all(isinstance(one, str) for one in contents):
        raise fault
    return contents


def continuing(prompt: str, answer: str) -> str:
    """The answer as it goes on from a prompt: after a space, unless one of the two makes it odd.

    Nothing is put after white space, nor beside Chinese or Japanese, which write no spaces.
    """
    beside = (prompt[-1:], answer[:1])
    if any(not one or one.isspace() or _is_wide(one) for one in beside):
        return answer
    return f" {answer}"


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in WIDE
