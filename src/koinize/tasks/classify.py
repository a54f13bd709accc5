"""Classify: one label out of a fixed set, each written to the model as its verbalizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from koinize.data import Row, not_among
from koinize.settings import EvaluationSection, EvaluationSpec
from koinize.tasks import _reading
from koinize.tasks._task import Example, Metrics, Task, check_codes, distinct, of_language

Label = Annotated[str, Field(min_length=1)]
CHOSEN: Metrics = ("macro-f1", "accuracy", "precision", "recall")
WRITTEN: Metrics = ("free-accuracy", "free-macro-f1", "parsed")
WRITTEN_TOKENS = 16  # at most; of a language with a longer verbalizer as many as that has, and one


class Classify(Task):
    """The model scores the verbalizer of every label; the labels stay in the order given."""

    mode: ClassVar[Literal["options", "text"]] = "options"
    besides: ClassVar[tuple[str, ...]] = ("free",)
    unworded: ClassVar[frozenset[str]] = Task.unworded | {"free"}

    kind: Literal["classify"] = "classify"
    labels: Annotated[tuple[Label, ...], AfterValidator(distinct)] = Field(
        min_length=2, description="the fixed set, in an order that never matters to a score"
    )
    verbalizers: dict[str, str | dict[str, str]] | None = Field(
        default=None,
        description="label -> the text that stands for it, or language -> such a mapping; "
        "by default the label itself",
    )
    target: str = Field(default="label", description="the column with the right label")
    free: bool = Field(
        default=False,
        description="whether the model also writes an answer to each test row, which counts only "
        "if it is a verbalizer of the language to the letter",
    )
    metrics: Metrics = CHOSEN

    def example(self, row: Row, language: str, key: str) -> Example:
        """Raises InputError for a label outside the set, or a prompt that cannot be made."""
        texts = self.texts(language)
        gold = self._gold(row, texts)
        prompt = self._prompt(row, language)
        if not self.verbalizers:
            options = tuple(_reading.continuing(prompt, label) for label in texts)
        else:
            options = texts
        return Example(
            key=key,
            language=language,
            prompt=prompt,
            target=options[gold],
            options=options,
            labels=self.labels,
            gold=gold,
        )

    def describe(self) -> str:
        """The labels and their column."""
        return f"classify: column '{self.target}', {len(self.labels)} labels: " + ", ".join(
            self.labels
        )

    @property
    def label_set(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels

    @property
    def writes(self) -> bool:
        """With `free`."""
        return self.free

    @property
    def label_texts(self) -> Mapping[str, tuple[str, ...]]:
        """The verbalizers by language; none where all languages have the same."""
        _, per_language = _split(self.verbalizers or {})
        return {language: tuple(of_label.values()) for language, of_label in per_language.items()}

    def evaluation(self, section: EvaluationSection, split: str) -> EvaluationSpec:
        """On test with `free` a line of few tokens is written, too; dev only chooses merges."""
        if not self.free or split != "test":
            return super().evaluation(section, split)
        return EvaluationSpec(
            **section.model_dump(), free=True, max_new_tokens=WRITTEN_TOKENS, stop=("\n",)
        )

    def wording(self, language: str) -> dict[str, object]:
        """With the verbalizers of this language alone."""
        return {**super().wording(language), "verbalizers": self.texts(language)}

    def texts(self, language: str) -> tuple[str, ...]:
        """The verbalizers of a language or, without any, the labels. Raises InputError."""
        if not self.verbalizers:
            return self.labels
        common, per_language = _split(self.verbalizers)
        of_label = common or of_language(per_language, language, "verbalizers")
        return tuple(of_label[label] for label in self.labels)

    def _gold(self, row: Row, texts: tuple[str, ...]) -> int:
        column, answer = self._answer(row, self.target)
        label = _reading.scalar(answer, row, column)
        if self.prompt is None:
            # A completion brings its own white space, and may be the verbalizer itself.
            label = label.strip()
            of_text = {text.strip(): name for text, name in zip(texts, self.labels, strict=True)}
            label = label if label in self.labels else of_text.get(label, label)
        if label in self.labels:
            return self.labels.index(label)
        raise not_among(
            f"the column '{column}' holds '{label}', which is no label of the task",
            label,
            self.labels,
            where=row.where,
        )

    def _wording(self, language: str) -> None:
        super()._wording(language)
        self.texts(language)

    @model_validator(mode="before")
    @classmethod
    def _metrics_of_free(cls, values: Any) -> Any:  # noqa: ANN401
        """Who asks for free answers, and names no metric, gets those that read them, too."""
        if not isinstance(values, Mapping) or "metrics" in values:
            return values
        if str(values.get("free")).lower() != "true":  # a file's truth values come as text
            return values
        given = values.get("verbalizers")
        texts = given.values() if isinstance(given, Mapping) else ()
        foreign = ("label-language",) if any(isinstance(one, Mapping) for one in texts) else ()
        return {**values, "metrics": (*CHOSEN, *WRITTEN, *foreign)}

    @model_validator(mode="after")
    def _verbalizers_of_labels(self) -> Self:
        common, per_language = _split(self.verbalizers or {})
        if not self.verbalizers:
            self._check_texts({label: label for label in self.labels}, "labels")
        if common and per_language:
            raise ValueError("verbalizers mixes labels and languages; give one or the other")
        if common:
            self._check_texts(common, "verbalizers")
        check_codes(per_language)
        for language, of_label in per_language.items():
            self._check_texts(of_label, f"verbalizers.{language}")
        return self

    def _check_texts(self, of_label: Mapping[str, str], place: str) -> None:
        if missing := [label for label in self.labels if label not in of_label]:
            raise ValueError(f"{place} has no text for the label '{missing[0]}'")
        if unknown := [label for label in of_label if label not in self.labels]:
            known = ", ".join(self.labels)
            raise ValueError(f"{place} names '{unknown[0]}', which is no label; write {known}")
        texts = [text.strip() for text in of_label.values()]
        if "" in texts:
            raise ValueError(f"{place} has an empty text, which no model can score")
        if len(set(texts)) < len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise ValueError(f"{place} gives two labels the same text '{twice}'")


def _split(
    verbalizers: Mapping[str, str | dict[str, str]],
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The texts per label for all languages, and those per language: one of the two is empty."""
    common = {label: text for label, text in verbalizers.items() if isinstance(text, str)}
    per_language = {
        language: of_label
        for language, of_label in verbalizers.items()
        if isinstance(of_label, dict)
    }
    return common, per_language


task = Classify
