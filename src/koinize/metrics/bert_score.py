"""BERTScore: how well each token of one text is met by some token of the other, by a model.

Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT" (arXiv 1904.09675), equation
1: greedy matching by cosine, without weights by rarity and without rescaling by a baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from koinize.metrics._judged import JudgedMetric
from koinize.metrics._metric import Floats, ResultRow
from koinize.model.judge import Encoded, JudgeSpec, Reader, layers_of

TOGETHER = 64  # rows whose hidden states are in memory at once


@dataclass(frozen=True)
class BertScore(JudgedMetric):
    """The mean over rows of F1 between the hidden states of text and reference, tokens by tokens.

    Tokens that a model adds to every text are left out on both sides. Two texts without a token
    are equal and score 1, one without scores 0, and so does an F1 below 0.
    """

    name = "bert-score"
    architecture = "AutoModel"
    asks: ClassVar[Mapping[str, object]] = MappingProxyType({"layer": None})

    def fixed(self) -> dict[str, object]:
        """Neither idf nor a baseline."""
        return {"idf": "no", "rescaled": "no", "special": "no"}

    def unfit(self, spec: JudgeSpec, config: Mapping[str, Any]) -> str:
        """An encoder with a decoder, or a layer that is not there."""
        if config.get("is_encoder_decoder"):
            return "is an encoder with a decoder; take an encoder or a decoder alone"
        layers = layers_of(config)
        if spec.layer is not None and spec.layer > layers:
            return f"has {layers} layers, and not {spec.layer}"
        return ""

    def judged(self, reader: Reader, spec: JudgeSpec, rows: Sequence[ResultRow]) -> Iterator[float]:
        """F1 of each row."""
        layer = spec.layer or 0
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            texts = [text for row in some for text in (row["prediction"], row["reference"])]
            items = reader.encode(texts)
            states = reader.outputs(
                items, lambda found: found.hidden_states[layer], output_hidden_states=True
            )
            vectors = [
                _of_text(state.numpy(), item) for state, item in zip(states, items, strict=True)
            ]
            for place in range(0, len(vectors), 2):
                yield f1(vectors[place], vectors[place + 1])


def _of_text(states: Floats, item: Encoded) -> Floats:
    """The hidden states of the text's own tokens: (tokens, hidden)."""
    own = ~np.array(item.special, dtype=bool)
    found: Floats = states[: len(item.ids)][own].astype(np.float64)
    return found


def f1(text: Floats, reference: Floats) -> float:
    """Greedy matching of tokens, (n, hidden) with (m, hidden), by their cosines.

    Precision is the mean over the text's tokens of the best cosine, recall over the reference's.
    """
    if not len(text) or not len(reference):
        return float(len(text) == len(reference))
    left, right = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (text, reference))
    cosines = left @ right.T
    precision, recall = float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean())
    if precision <= 0 or recall <= 0:
        return 0.0
    return min(1.0, 2 * precision * recall / (precision + recall))


metric = BertScore()
