"""Not hallucinated: the share of texts that follow from what was asked, by a model of entailment.

100 less it is the hallucination rate. The model is any that was trained on natural language
inference (Bowman et al. 2015): premise and hypothesis in, the probability of entailment out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from koinize.metrics._calibrated import CalibratedMetric
from koinize.metrics._metric import ResultRow
from koinize.model.judge import JudgeSpec, Reader, is_built_for

TOGETHER = 256  # rows whose tokens are in memory at once
CLASSIFIER = "ForSequenceClassification"


@dataclass(frozen=True)
class NotHallucinated(CalibratedMetric):
    """100 x (1 - texts less likely entailed by their prompt than the threshold / rows).

    The text is read whole, as one statement. An empty one states nothing and is right: read it
    with not-empty.
    """

    name = "not-hallucinated"
    also = ("prompt",)
    architecture = "AutoModelForSequenceClassification"
    fault = "hallucinated"
    chance = "of following from its prompt"
    asks: ClassVar[Mapping[str, object]] = MappingProxyType({"false_alarm": 0.05})

    def fixed(self) -> dict[str, object]:
        """What is the premise, and what decides."""
        return {"from": "prompt", "threshold": "references"}

    def false_alarm(self, spec: JudgeSpec) -> float:
        """As koinize.yaml has it."""
        return float(self.asked(spec, "false_alarm"))

    def unfit(self, spec: JudgeSpec, config: Mapping[str, Any]) -> str:  # noqa: ARG002
        """A model that classifies no texts, or does not say which of its labels is entailment."""
        if not is_built_for(CLASSIFIER, config):
            return "classifies no texts; take a model of entailment (NLI)"
        given = config.get("id2label")
        labels = given if isinstance(given, dict) else {}
        if len(entailment(labels)) != 1:
            known = ", ".join(map(str, labels.values())) or "none"
            return (
                "has no label 'entailment', or several; take a model of entailment (NLI), or name "
                f"it in id2label of its config.json (labels there: {known})"
            )
        return ""

    def judged(
        self,
        reader: Reader,
        spec: JudgeSpec,  # noqa: ARG002
        rows: Sequence[ResultRow],
    ) -> Iterator[float]:
        """The probability that the text of each row follows from its prompt."""
        (place,) = entailment(reader.model.config.id2label)
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            for row in some:
                self._check(row)
            items = reader.encode(
                [row["prompt"] for row in some], [row["prediction"] for row in some]
            )
            found = reader.outputs(items, lambda of: of.logits.float().softmax(-1)[:, place])
            for row, one in zip(some, found, strict=True):
                yield float(one) if row["prediction"].strip() else 1.0


def entailment(labels: Mapping[Any, object]) -> list[int]:
    """Which outputs of a model, by its id2label, are the probability of entailment."""
    return [
        int(place)
        for place, name in labels.items()
        if str(place).isdecimal() and str(name).strip().casefold() == "entailment"
    ]


metric = NotHallucinated()
