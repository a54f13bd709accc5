"""Rows and scores of koinize's tasks, for lm-evaluation-harness: copied beside the tasks, as it is.

It imports nothing of koinize: sacreBLEU and datasets come with lm-evaluation-harness. Scores are
those of koinize, from 0 to 1.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Pair = tuple[str, str]
"""What is right, and what was answered."""


def rows(file: str, **_: object) -> dict[str, Any]:
    """The rows of a file beside this one, as the split `test`."""
    from datasets import Dataset

    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}


def choose(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """The option with the largest sum of log-probabilities, or the largest mean over its tokens."""
    sums = [total for total, _ in results]
    means = [total / length for total, length in zip(sums, doc["lengths"], strict=True)]
    said = _largest(means if doc["normalize"] == "length" else sums)
    gold = doc["gold"]
    return {"accuracy": float(said == gold), "accuracy_normalized": float(_largest(means) == gold)}


def classify(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """The same, and what is averaged over labels."""
    found = choose(doc, results)
    sums = [total for total, _ in results]
    means = [total / length for total, length in zip(sums, doc["lengths"], strict=True)]
    said = _largest(means if doc["normalize"] == "length" else sums)
    pair = (doc["labels"][doc["gold"]], doc["labels"][said])
    return {**found, "macro_f1": pair, "precision": pair, "recall": pair}


def write(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """The text that was written, without white space around it."""
    said, right = results[0].strip(), doc["target"]
    return {"exact_match": float(_normal(said) == _normal(right)), "chrf": (right, said)}


def macro_f1(pairs: Sequence[Pair]) -> float:
    """The mean over labels of the harmonic mean of precision and recall."""
    return _macro(pairs, 0.5)


def precision(pairs: Sequence[Pair]) -> float:
    """The mean over labels of hits / predictions."""
    return _macro(pairs, 1.0)


def recall(pairs: Sequence[Pair]) -> float:
    """The mean over labels of hits / rows."""
    return _macro(pairs, 0.0)


def chrf(pairs: Sequence[Pair]) -> float:
    """chrF2 of all texts together."""
    from sacrebleu import CHRF

    right, said = zip(*pairs, strict=True)
    return float(CHRF().corpus_score(list(said), [list(right)]).score) / 100


def _macro(pairs: Sequence[Pair], weight: float) -> float:
    """Over the labels that are right somewhere: a label without rows asks nothing."""
    gold, said = Counter(right for right, _ in pairs), Counter(said for _, said in pairs)
    hits = Counter(right for right, said in pairs if right == said)
    each = [hits[one] / (weight * said[one] + (1 - weight) * gold[one]) if hits[one] else 0.0
            for one in gold]  # fmt: skip
    return sum(each) / len(each)


def _largest(values: Sequence[float]) -> int:
    """The place of the largest value, the first of equals."""
    return max(range(len(values)), key=values.__getitem__)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
