"""What all task kinds share: where the data stand, the prompt, and rows made into examples."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from koinize.data import SPLITS, Finding, Row, check_splits, refuse
from koinize.digest import digest, short
from koinize.errors import InputError
from koinize.frozen import Frozen
from koinize.settings import EvaluationSection, EvaluationSpec
from koinize.tasks import _reading, _template

V = TypeVar("V")
Margin = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """The values, unless one of them stands twice, composed or not (ValueError)."""
    composed = (unicodedata.normalize("NFC", value) for value in values)
    if twice := [value for value, times in Counter(composed).items() if times > 1]:
        raise ValueError(f"'{twice[0]}' stands twice")
    return values


Metrics = Annotated[
    tuple[str, ...],
    AfterValidator(distinct),
    Field(min_length=1, description="what is reported; the first chooses between merges, on dev"),
]


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to train on or to score, after the prompt template.

    `target` and each of `options` go on from `prompt` as they stand, spaces included. A chat
    model's template is applied later, to `turns` or, where there are none, to `prompt` as the
    message of a user.
    """

    key: str
    """Identity of what the row asks: 12 digits of its digest, and a counter where it repeats."""
    language: str
    prompt: str
    target: str
    """What training learns to write after the prompt."""
    options: tuple[str, ...] = ()
    """The texts to score; none where a text is generated."""
    labels: tuple[str, ...] = ()
    """The names of the options, in their order."""
    gold: int = -1
    """Index of the right option; -1 where a text is generated."""
    turns: _reading.Turns = ()
    """Role and text of each message before the answer, where they are more than one of a user.
    `prompt` is then all their text."""

    @property
    def digest(self) -> str:
        """Of what a model is shown, and what it should answer: the row as a model knows it."""
        said = [self.prompt, self.target, self.options, self.labels, self.gold]
        return digest([*said, self.turns] if self.turns else said)

    @property
    def bytes(self) -> int:
        """Of text that a model reads and writes for it."""
        text = "".join((self.prompt, self.target, *self.options))
        return len(text.encode("utf-8", "replace"))

    @property
    def longest(self) -> int:
        """Bytes of the prompt and the longest of what may follow it, composed or not.

        A token has a byte at least, so that no tokenizer makes more of them.
        """
        followed = (self.prompt + end for end in (self.target, *self.options))
        return max(
            len(one.encode("utf-8", "replace"))
            for text in followed
            for one in (text, unicodedata.normalize("NFKD", text))
        )


class Task(Frozen, ABC):
    """What an example means. A kind is one file of `koinize.tasks` whose `task` is a subclass."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    mode: ClassVar[Literal["options", "text"]]
    """How a model answers: by scoring `Example.options`, or by writing a text."""
    besides: ClassVar[tuple[str, ...]] = ()
    """Kinds of answers that it may be asked for besides that of its mode."""
    placeholders: ClassVar[frozenset[str]] = frozenset()
    """Names that a prompt template may use beside the row's columns."""
    unworded: ClassVar[frozenset[str]] = frozenset({"data", "key", "metrics", "margins"})
    """Fields that say where rows stand or how answers are scored, and not what an example is."""

    kind: str
    data: str | dict[str, str | dict[str, str]] = Field(
        default="data/{language}.{split}.jsonl",
        description="where the rows stand: one template with {language} and {split}, or a "
        "template or a mapping of splits per language",
    )
    key: str | None = Field(
        default=None,
        description="column that says what a row is about, in every language: rows that share its "
        "value may not stand in two splits",
    )
    prompt: str | dict[str, str] | None = Field(
        default=None,
        description="template over the row's columns, or one per language; may be left out where "
        "the rows have messages, or prompt and completion",
    )
    answers: Literal["last", "all"] = Field(
        default="last",
        description="which answers of a row's messages are examples: the last one, or all of "
        "them, each with what came before it",
    )
    metrics: Metrics
    margins: dict[str, Margin] = Field(
        default={}, description="metric -> points that a language may lose before it is worse"
    )

    @abstractmethod
    def example(self, row: Row, language: str, key: str) -> Example:
        """The example that a row makes; `key` is hexadecimal. Raises InputError."""

    @abstractmethod
    def describe(self) -> str:
        """The task in one line, for people."""

    @classmethod
    def answered(cls) -> tuple[str, ...]:
        """The kinds of answers that a metric of this task may read."""
        return (cls.mode, *cls.besides)

    @property
    def label_set(self) -> tuple[str, ...]:
        """The fixed labels that a metric counts over; none where every row has options of its own,
        or a text is written.
        """
        return ()

    @property
    def writes(self) -> bool:
        """Whether the model writes answers."""
        return self.mode == "text"

    @property
    def label_texts(self) -> Mapping[str, tuple[str, ...]]:
        """What stands for the labels in each language, where that is another text in each."""
        return {}

    def evaluation(self, section: EvaluationSection, split: str) -> EvaluationSpec:  # noqa: ARG002
        """The project's evaluation settings, with what this task says of answering a split."""
        return EvaluationSpec(**section.model_dump())

    def source(self, language: str, split: str) -> str:
        """Where the rows of this split stand, as `koinize.data.read_rows` takes it.

        Raises InputError for a language or a split that `data` does not name.
        """
        place = self.data
        of_split = of_language(place, language, "data") if isinstance(place, dict) else place
        if isinstance(of_split, dict):
            if split not in of_split:
                raise InputError(
                    f"there is no {split} split for language '{language}'",
                    expected=f"the splits {', '.join(SPLITS)}",
                    remedy=f"add '{split}: PATH' under data.{language}",
                )
            of_split = of_split[split]
        return _template.render(of_split, {"language": language, "split": split})

    def wording(self, language: str) -> dict[str, object]:
        """What besides a row makes its example, by field: the prompt, the answer's column, ..."""
        said = self.model_dump(mode="json", exclude=set(self.unworded))
        return {**said, "prompt": self.template(language)}

    def template(self, language: str) -> str | None:
        """The prompt template of a language. Raises InputError where others have one and it not."""
        if isinstance(self.prompt, dict):
            return of_language(self.prompt, language, "prompt")
        return self.prompt

    def check_languages(self, languages: Iterable[str]) -> None:
        """Refuse, before any data is read, languages that the task says too little about.

        Raises ManyErrors with everything that is missing.
        """
        errors: dict[str, InputError] = {}
        sources = [partial(self.source, split=split) for split in SPLITS]
        look_ups: list[Callable[[str], object]] = [self._wording, *sources]
        for language in sorted(languages):
            for look_up in look_ups:
                try:
                    look_up(language)
                except InputError as error:
                    errors[str(error)] = error
        refuse(list(errors.values()))

    def examples(self, rows: Iterable[Row], language: str) -> list[Example]:
        """The examples of a split, sorted by key: the order of the rows changes nothing.

        Nor does a column that the task does not name, nor the wording around what a row asks.
        Raises ManyErrors that names every bad row (the first 20 in full).
        """
        found: list[Example] = []
        errors: list[InputError] = []
        self._wording(language)  # one error for the task, not one for every row
        for row in rows:
            try:
                for one in self._answered(row):
                    key = short(digest(self.asked(one, language)))
                    example = self.example(one, language, key)
                    found.append(replace(example, turns=self._turns(one)))
            except InputError as error:
                errors.append(error)
        refuse(errors)
        found.sort(key=lambda one: (one.key, one.prompt, one.target, one.options))
        return _distinct_keys(found)

    def check(self, splits: Mapping[tuple[str, str], Sequence[Row]]) -> tuple[Finding, ...]:
        """Leaks, duplicates and conflicts between the rows of {(language, split): rows}.

        What is compared is the row's own text, not the prompt around it. Raises InputError for
        rows that make no example.
        """

        def answer(row: Row, language: str) -> str:
            return self.example(row, language, key="0").target

        answered = {
            place: [one for row in rows for one in self._answered(row)]
            for place, rows in splits.items()
        }
        return check_splits(answered, text=self.asked, answer=answer, key=self.key)

    def asked(self, row: Row, language: str) -> str:
        """What a row asks, without the words that the template puts around it."""
        if self.template(language) is None:
            return _reading.plain(_reading.conversation(row)[0])
        return "\n".join(self._cells(row, language).values())

    def bare(self, prompt: str, language: str) -> str:
        """A prompt without the words before the first column and after the last one of its
        template: instructions, and examples for every row.
        """
        pieces = _template.parse(self.template(language) or "")
        return prompt.removeprefix(pieces[0][0]).removesuffix(pieces[-1][0])

    def _prompt(self, row: Row, language: str, **placeholders: str) -> str:
        template = self.template(language)
        if template is None:
            return _reading.plain(_reading.conversation(row)[0])
        return _template.render(template, self._cells(row, language) | placeholders)

    def _answered(self, row: Row) -> list[Row]:
        """The rows that one row stands for: one for each of the answers that count."""
        if self.prompt is not None or self.answers == "last":
            return [row]
        return _reading.each_answer(row)

    def _turns(self, row: Row) -> _reading.Turns:
        """The messages before the answer; none where they are but the prompt of a user."""
        turns = _reading.conversation(row)[0] if self.prompt is None else ()
        return turns if len(turns) > 1 else ()

    def _cells(self, row: Row, language: str) -> dict[str, str]:
        """The columns that the template names, as text."""
        columns = [
            name
            for name in _template.names(self.template(language) or "")
            if name not in self.placeholders
        ]
        cells = {name: _reading.text(row, name, named_by="prompt") for name in columns}
        if cells and not any(cell.strip() for cell in cells.values()):
            what = f"there is nothing but white space in {', '.join(columns)}"
            raise InputError(what, where=row.where, expected="text for the prompt")
        return cells

    def _answer(self, row: Row, column: str) -> tuple[str, object]:
        """Where the row's answer stands, and what it is.

        In the column, or else, without a template, in the completion or the last message.
        """
        if self.prompt is None and column not in row.columns:
            form = "messages" if "messages" in row.columns else "completion"
            return form, _reading.conversation(row)[1]
        return column, _reading.value(row, column, named_by="task")

    def _wording(self, language: str) -> None:
        """Raise InputError for a language in which the task has not all of its words."""
        self.template(language)

    @field_validator("data")
    @classmethod
    def _data_templates(
        cls, data: str | dict[str, str | dict[str, str]]
    ) -> str | dict[str, str | dict[str, str]]:
        if isinstance(data, str):
            _check_place(data, needed=("language", "split"))
            return data
        for language, place in data.items():
            if isinstance(place, str):
                _check_place(place, needed=("split",))
                continue
            for split, one in place.items():
                if split not in SPLITS:
                    raise ValueError(
                        f"'{split}' under {language} is no split; write {', '.join(SPLITS)}"
                    )
                _check_place(one, needed=())
        return data

    @field_validator("data", "prompt")
    @classmethod
    def _keys_are_languages(cls, value: V) -> V:
        if isinstance(value, dict):
            check_codes(value)
        return value

    @field_validator("prompt")
    @classmethod
    def _prompt_templates(cls, prompt: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for template in prompt.values() if isinstance(prompt, dict) else [prompt]:
            if template is not None and not _template.names(template):
                raise ValueError(
                    f"the template {template!r} names no column; "
                    "write {text} where the column 'text' belongs"
                )
        return prompt

    @model_validator(mode="after")
    def _margins_of_metrics(self) -> Self:
        if unknown := sorted(set(self.margins) - set(self.metrics)):
            raise ValueError(
                f"margins names '{unknown[0]}', which is not under metrics: "
                + ", ".join(self.metrics)
            )
        return self


def check_codes(languages: Iterable[str]) -> None:
    """Raise ValueError for what is no language's code because of the white space in it."""
    for one in languages:
        if one.split() != [one]:
            raise ValueError(f"{one!r} is no language; write its code, without white space")


def of_language(values: Mapping[str, V], language: str, field: str) -> V:
    """A language's value in a field with one per language. Raises InputError if it has none."""
    if language not in values:
        raise InputError(
            f"there is no {field} for language '{language}'",
            expected=f"one for every language; there is one for {', '.join(sorted(values))}",
            remedy=f"add '{language}: ...' under {field}",
        )
    return values[language]


def _check_place(template: str, *, needed: tuple[str, ...]) -> None:
    named = set(_template.names(template))
    if unknown := sorted(named - {"language", "split"}):
        raise ValueError(f"'{template}' names {{{unknown[0]}}}; write {{language}} or {{split}}")
    if missing := [name for name in needed if name not in named]:
        raise ValueError(
            f"'{template}' would be the same file for every {missing[0]}; "
            f"write {{{missing[0]}}} in it, or give a mapping"
        )


def _distinct_keys(examples: Iterable[Example]) -> list[Example]:
    times: Counter[str] = Counter()
    renamed = []
    for one in examples:
        times[one.key] += 1
        nth = times[one.key]
        renamed.append(one if nth == 1 else replace(one, key=f"{one.key}-{nth}"))
    return renamed
