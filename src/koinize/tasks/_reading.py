"""What a row says: its cells as text, and its prompt and answer where no template says how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle

from koinize.data import Row, not_among
from koinize.errors import InputError

Turns = tuple[tuple[str, str], ...]
"""The messages before an answer: role and text of each."""
OTHER_ROLES = {
    "developer": "write 'system' instead",
    "tool": "leave the row out: calls of tools are not learnt",
    "function": "leave the row out: calls of tools are not learnt",
}
"""What to do about roles that chat formats know beside these three."""
UNSPACED = (
    (0x2E80, 0x312F),  # radicals, punctuation, kana, Bopomofo
    (0x3190, 0x31FF),
    (0x3220, 0x325F),  # enclosed and squared, without the Korean ones
    (0x3280, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE4F),
    (0xFF00, 0xFF9F),  # full-width forms and half-width kana
    (0xFFE0, 0xFFE6),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)
"""Code points of Chinese and Japanese, which write no spaces between words as Korean does."""


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


def conversation(row: Row) -> tuple[Turns, str]:
    """What comes before the answer of a row, and the answer.

    A row has `messages` (a system message or none, then a user and an assistant in turns), or
    `prompt` and `completion`. The answer is empty where a row with a `prompt` has no `completion`.
    Raises InputError for rows of any other form.
    """
    if "messages" in row.columns:
        *asked, (_, answer) = _messages(row)
        return tuple(asked), answer
    if "prompt" in row.columns:
        completion = "completion" in row.columns
        answer = text(row, "completion", named_by="task") if completion else ""
        return (("user", text(row, "prompt", named_by="task")),), answer
    raise InputError(
        "the task has no prompt template for this row",
        where=row.where,
        expected="the columns 'messages', or 'prompt' and 'completion'",
        remedy='give the task a template, such as prompt: "{text}"',
    )


def each_answer(row: Row) -> list[Row]:
    """A row for every answer of a conversation, each with what came before it.

    Rows of another form are given back as they are. Raises InputError as `conversation` does.
    """
    if "messages" not in row.columns:
        return [row]
    messages = list(zip(_messages(row), _listed(row), strict=True))
    ends = [n for n, ((role, _), _) in enumerate(messages, start=1) if role == "assistant"]
    return [Row({**row.columns, "messages": _listed(row)[:end]}, row.where) for end in ends]


def plain(turns: Turns) -> str:
    """The messages as one text, an empty line between two: for models without a chat template."""
    return "\n\n".join(said for _, said in turns)


def _listed(row: Row) -> list[object]:
    messages = row.columns["messages"]
    if isinstance(messages, list) and messages:
        return messages
    raise InputError(
        f"the column 'messages' holds {'no message' if messages == [] else 'no list'}",
        where=row.where,
        expected="[{role: user, content: ...}, {role: assistant, content: ...}]",
    )


def _messages(row: Row) -> list[tuple[str, str]]:
    messages = [_message(one, number, row) for number, one in enumerate(_listed(row), start=1)]
    first = 2 if messages[0][0] == "system" else 1
    for number, wanted in zip(range(first, len(messages) + 1), cycle(("user", "assistant"))):
        if messages[number - 1][0] != wanted:
            raise InputError(
                f"message {number} has the role '{messages[number - 1][0]}'",
                where=row.where,
                expected=f"'{wanted}' there: a system message first or none, then user and "
                "assistant in turns",
            )
    if messages[-1][0] != "assistant":
        raise InputError(
            f"the last message has the role '{messages[-1][0]}'",
            where=row.where,
            expected="'assistant', whose answer is to be learnt",
        )
    return messages


def _message(message: object, number: int, row: Row) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise InputError(
            f"message {number} is no object",
            where=row.where,
            expected="{role: ..., content: ...}",
        )
    role = message.get("role")
    if role not in ("system", "user", "assistant"):
        raise InputError(
            f"message {number} has the role '{role}'" if role else f"message {number} has no role",
            where=row.where,
            expected="'system', 'user' or 'assistant'",
            remedy=OTHER_ROLES.get(str(role), ""),
        )
    name = f"message {number}, of role '{role}',"
    if message.get("tool_calls"):
        remedy = OTHER_ROLES["tool"]
        raise InputError(f"{name} calls a tool", where=row.where, remedy=remedy)
    content = message.get("content")
    if content is None:
        remedy = "leave the message out" if role == "system" else ""
        what = f"{name} has no content"
        raise InputError(what, where=row.where, expected="text", remedy=remedy)
    return str(role), content if isinstance(content, str) else _parts(content, name, row)


def _parts(content: object, name: str, row: Row) -> str:
    """The text of a content in parts, one part a line."""
    if not isinstance(content, Sequence) or not content:
        what = f"{name} has a content that is no text"
        raise InputError(what, where=row.where, expected="text, or a list of parts of type 'text'")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            what = (
                f"{name} has a part of type '{kind}'" if kind else f"{name} has a part of no type"
            )
            raise InputError(what, where=row.where, expected="parts of type 'text' only")
        texts.append(part["text"])
    return "\n".join(texts)


def continuing(prompt: str, answer: str) -> str:
    """The answer as it goes on from a prompt: after a space, unless one of the two makes it odd.

    Nothing is put after white space, nor beside Chinese or Japanese, which write no spaces.
    """
    beside = (prompt[-1:], answer[:1])
    if any(not one or one.isspace() or _is_unspaced(one) for one in beside):
        return answer
    return f" {answer}"


@cache
def _is_unspaced(character: str) -> bool:
    """Asked for every option of every row, and there are only so many characters."""
    return any(first <= ord(character) <= last for first, last in UNSPACED)
