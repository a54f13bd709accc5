"""Choose: one of several options that every row brings with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from string import ascii_uppercase
from typing import ClassVar, Literal

from pydantic import Field

from koinize.data import Row, refuse
from koinize.errors import InputError
from koinize.files import parse_json
from koinize.tasks import _reading
from koinize.tasks._task import Example, Metrics, Task

MOST_OPTIONS = len(ascii_uppercase)


class Choose(Task):
    """The model scores the text of every option of the row.

    Options are rotated by the row's key, so that no place in the list is right more often than
    others; `Example.labels` keeps their indexes in the row. `{options}` in a prompt template shows
    them as lines "A. ...", in the rotated order.
    """

    mode: ClassVar[Literal["options", "text"]] = "options"
    placeholders: ClassVar[frozenset[str]] = frozenset({"options"})

    kind: Literal["choose"] = "choose"
    options: str = Field(default="options", description="the column with the list of options")
    target: str = Field(
        default="answer",
        description="the column with the right option: its text, its letter from A on, or its "
        "index from 0 on",
    )
    # Indexes mean nothing across rows, so averages over them as if they were labels mean nothing.
    metrics: Metrics = ("accuracy",)

    def example(self, row: Row, language: str, key: str) -> Example:
        """Raises InputError for options or an answer that cannot be used."""
        options = self._options(row)
        answer = self._index(row, options)
        shift = int(key, 16) % len(options)
        rotated = options[shift:] + options[:shift]
        lines = zip(ascii_uppercase, rotated, strict=False)
        shown = "\n".join(f"{letter}. {option}" for letter, option in lines)
        prompt = self._prompt(row, language, options=shown)
        texts = tuple(_reading.continuing(prompt, option) for option in rotated)
        gold = (answer - shift) % len(options)
        return Example(
            key=key,
            language=language,
            prompt=prompt,
            target=texts[gold],
            options=texts,
            labels=tuple(str((place + shift) % len(options)) for place in range(len(options))),
            gold=gold,
        )

    def examples(self, rows: Iterable[Row], language: str) -> list[Example]:
        """As for every task. Raises ManyErrors also for answers that may mean two options."""
        rows = list(rows)
        found = super().examples(rows, language)
        self._check_mixture(rows)
        return found

    def describe(self) -> str:
        """The columns of the answer and the options."""
        return f"choose: column '{self.target}' among the options in column '{self.options}'"

    def asked(self, row: Row, language: str) -> str:
        """The question together with its options, whatever their order."""
        return "\n".join([super().asked(row, language), *sorted(self._options(row))])

    def _options(self, row: Row) -> tuple[str, ...]:
        found = _reading.value(row, self.options, named_by="task")
        if isinstance(found, str):
            found = _json(found)  # a CSV file has no lists
        expected = f"a list of 2 to {MOST_OPTIONS} different texts"
        what = f"the column '{self.options}' holds "
        if not isinstance(found, list | tuple):
            raise InputError(f"{what}no list", where=row.where, expected=expected)
        if not 2 <= len(found) <= MOST_OPTIONS:
            raise InputError(f"{what}{len(found)} options", where=row.where, expected=expected)
        options = tuple(_reading.scalar(one, row, self.options).strip() for one in found)
        if "" in options:
            raise InputError(f"{what}an empty option", where=row.where, expected=expected)
        if len(set(options)) < len(options):
            twice = next(one for one in options if options.count(one) > 1)
            raise InputError(f"{what}'{twice}' twice", where=row.where, expected=expected)
        return options

    def _index(self, row: Row, options: tuple[str, ...]) -> int:
        """Which option is right. An option's own text counts before all other ways to say it."""
        column, answer = self._said(row)
        if answer in options:
            return options.index(answer)
        value = _number(answer)
        equal = {n for n, one in enumerate(options) if value is not None and value == _number(one)}
        meant = equal | _placed(answer, options)
        if len(meant) == 1:
            return meant.pop()
        letters = ascii_uppercase[: len(options)]
        raise InputError(
            f"the column '{column}' holds '{answer}', which "
            + ("may be more than one of the options" if meant else "is none of the options"),
            where=row.where,
            expected=f"an option's text, a letter from A to {letters[-1]}, "
            f"or an index from 0 to {len(options) - 1}",
        )

    def _said(self, row: Row) -> tuple[str, str]:
        """The column of the answer, and its text."""
        column, found = self._answer(row, self.target)
        return column, _reading.scalar(found, row, column).strip()

    def _check_mixture(self, rows: Iterable[Row]) -> None:
        """Refuse rows whose answer is the text of one option and the place of another, if other
        rows leave no doubt that answers are places. Raises ManyErrors.
        """
        doubtful, by_place = [], False
        for row in rows:
            options, (column, answer) = self._options(row), self._said(row)
            by_place |= answer not in options
            if answer in options and _placed(answer, options) - {options.index(answer)}:
                what = f"the column '{column}' holds '{answer}', the text of one option and the "
                what += "letter or index of another, and other rows give letters or indexes"
                remedy = "give every row the text of its option"
                doubtful.append(InputError(what, where=row.where, remedy=remedy))
        if by_place:
            refuse(doubtful)


def _placed(answer: str, options: Sequence[str]) -> set[int]:
    """The index that an answer means as a letter or an index; empty if it means none."""
    letters = ascii_uppercase[: len(options)]
    return {n for n, letter in enumerate(letters) if answer in (letter, str(n))}


def _number(text: str) -> Decimal | None:
    """The value of what is written as a number."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _json(text: str) -> object:
    try:
        return parse_json(text)
    except ValueError:
        return text


task = Choose
