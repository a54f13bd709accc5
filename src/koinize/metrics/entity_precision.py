"""Entity precision: of the entities in the text, the share that prompt or reference has.

Nan et al. 2021, "Entity-level Factual Consistency of Abstractive Text Summarization", section 2:
precision-source. A model of named entities finds those of the text; they are looked up by their
tokens, so that it misses nothing in the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from koinize.errors import InputError
from koinize.metrics._judged import JudgedMetric
from koinize.metrics._metric import ResultRow
from koinize.metrics._tokens import goes_on, stands_in, tokens
from koinize.model.judge import Encoded, JudgeSpec, Reader, is_built_for

TOGETHER = 256  # rows whose tokens are in memory at once
TAGGER, NONE = "ForTokenClassification", "O"
BEGINS = ("B-", "U-", "S-")
"""How labels begin whose token begins an entity, whatever stands before it."""


@dataclass(frozen=True)
class EntityPrecision(JudgedMetric):
    """The mean over rows of entities that stand in the prompt or in the reference / entities.

    A text without an entity has none that is wrong, and scores 1.
    """

    name = "entity-precision"
    also = ("prompt",)
    architecture = "AutoModelForTokenClassification"

    def fixed(self) -> dict[str, object]:
        """The tokens, where an entity may come from, and what silence is worth."""
        return {"tok": "script", "case": "fold", "in": "prompt-reference", "none": 100}

    def unfit(self, spec: JudgeSpec, config: Mapping[str, Any]) -> str:  # noqa: ARG002
        """A model that labels no tokens, or does not say which of them are no entity."""
        if not is_built_for(TAGGER, config):
            return "labels no tokens; take a model of named entities (NER)"
        given = config.get("id2label")
        labels = list(map(str, given.values())) if isinstance(given, dict) else []
        if NONE not in labels or len(labels) < 2:
            known = ", ".join(labels) or "none"
            return (
                f"has no label '{NONE}' beside others; take a model of named entities (NER), or "
                f"name it in id2label of its config.json (labels there: {known})"
            )
        return ""

    def judged(
        self,
        reader: Reader,
        spec: JudgeSpec,
        rows: Sequence[ResultRow],
    ) -> Iterator[float]:
        """Known entities / entities of each row, each as often as it is written."""
        if not reader.tokenizer.is_fast:
            raise InputError(
                f"the tokenizer of {spec.model} does not say where its tokens stand",
                where=f"judges.{self.name}",
                expected="a model with a tokenizer.json",
            )
        labels = reader.model.config.id2label
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            for row in some:
                self._check(row)
            items = reader.encode([row["prediction"] for row in some])
            best = reader.outputs(items, lambda of: of.logits.argmax(-1))
            for row, item, of_tokens in zip(some, items, best, strict=True):
                named = [labels[int(one)] for one in of_tokens[: len(item.ids)]]
                yield _known(row, entities(row["prediction"], item, named))


def _known(row: ResultRow, found: Sequence[str]) -> float:
    sources = tokens(row["prompt"]), tokens(row["reference"])
    known = [any(stands_in(tokens(one), source) for source in sources) for one in found]
    return sum(known) / len(known) if known else 1.0


def entities(text: str, item: Encoded, labels: Sequence[str]) -> list[str]:
    """The entities of a text by the labels of its tokens, such as B-PER, I-PER and O.

    A word is labelled by its first token. Neighbours of one kind are one entity, unless the label
    says that another begins.
    """
    found: list[tuple[int, int]] = []
    kind = ""  # of the entity that the last word was part of
    for (first, end), special, label in zip(item.spans, item.special, labels, strict=True):
        start = first + len(text[first:end]) - len(text[first:end].lstrip())
        if special or start == end:
            continue
        if not goes_on(text, start):
            before, kind = kind, "" if label == NONE else label.split("-", 1)[-1]
            if kind and (kind != before or label.startswith(BEGINS)):
                found.append((start, end))
        if kind:
            found[-1] = found[-1][0], end
    return [text[start:end] for start, end in found]


metric = EntityPrecision()
