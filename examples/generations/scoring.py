"""Scoring: an adapter's answers to a split, kept as compact columns per language.

An options task keeps each row's prediction and the compared value of every option (log-probability,
less its unconditional one where the task says pmi); a text task its texts, and the log-probability
and length of the reference, which is what a weight is chosen by: 40 rows of ROUGE tell little.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from koinize.evaluate import evaluate
from koinize.metrics import Metric, metrics
from koinize.model.loaded import Loaded
from koinize.settings import EvaluationSpec
from koinize.tasks import Example, Task

Columns = dict[str, list[Any]]
Answers = dict[str, Columns]
"""Language -> columns, one entry per row in the order of the split."""

REFERENCE = "reference"


@dataclass(frozen=True)
class Scorer:
    """How a task's splits are scored."""

    loaded: Loaded
    task: Task
    settings: EvaluationSpec

    @property
    def metric(self) -> Metric:
        """The task's first metric."""
        return metric_of(self.task)

    def score(self, examples: Sequence[Example], *, texts: bool) -> tuple[Answers, int, float]:
        """Answers by language, tokens that the model read or wrote, and seconds.

        `texts`: whether a text task also writes its texts.
        """
        began = time.perf_counter()
        if self.task.mode == "options":
            rows = evaluate(self.loaded, examples, "options", self.settings)
            found, tokens = _options(rows), self._tokens(examples)
        else:
            found, tokens = self._text(examples, texts)
        return found, tokens, time.perf_counter() - began

    def _text(self, examples: Sequence[Example], texts: bool) -> tuple[Answers, int]:
        references = [
            replace(one, options=(one.target,), labels=(REFERENCE,), gold=0) for one in examples
        ]
        plain = self.settings.model_copy(update={"normalize": "none"})
        scored = evaluate(self.loaded, references, "options", plain)
        tokens = self._tokens(references)
        found: Answers = {}
        for row in scored:
            columns = found.setdefault(str(row["language"]), {"nll": [], "length": []})
            columns["nll"].append(round(-float(row["scores"][0]), 3))  # type: ignore[index]
            columns["length"].append(row["lengths"][0])  # type: ignore[index]
        if texts:
            for row in evaluate(self.loaded, examples, "text", self.settings):
                columns = found[str(row["language"])]
                columns.setdefault("prediction", []).append(row["prediction"])
                tokens += int(row["tokens"])  # type: ignore[call-overload]
            tokens += sum(len(self._encoded(one, ()).prompt) for one in examples)
        return found, tokens

    def _tokens(self, examples: Sequence[Example]) -> int:
        return sum(self._encoded(one, one.options).total for one in examples)

    def _encoded(self, one: Example, options: Sequence[str]) -> Any:  # noqa: ANN401 - Tokens
        return self.loaded.encoder.encode(
            one.prompt, options, max_length=self.settings.max_length, where=one.key
        )


def metric_of(task: Task) -> Metric:
    """A task's first metric, over its labels."""
    return metrics.get(task.metrics[0]).over(task.label_set)


def _options(rows: Sequence[Mapping[str, Any]]) -> Answers:
    found: Answers = {}
    for row in rows:
        columns = found.setdefault(row["language"], {"prediction": [], "scores": []})
        columns["prediction"].append(row["prediction"])
        minus = row.get("unconditional") or [0.0] * len(row["scores"])
        columns["scores"].append(
            [round(a - b, 3) for a, b in zip(row["scores"], minus, strict=True)]
        )
    return found


def gold_of(examples: Sequence[Example]) -> Answers:
    """The rows themselves: keys, the right answer, and its place among the options."""
    found: Answers = {}
    for one in examples:
        columns = found.setdefault(one.language, {"key": [], "gold": [], "index": []})
        columns["key"].append(one.key)
        columns["gold"].append(one.labels[one.gold] if one.options else one.target)
        columns["index"].append(one.gold)
    return found


def nll(answers: Columns, gold: Columns) -> list[float]:
    """Per row: minus the log-probability of the right option among the options, or of a token of
    the reference.
    """
    if "nll" in answers:
        pairs = zip(answers["nll"], answers["length"], strict=True)
        return [value / max(1, length) for value, length in pairs]
    found = []
    for scores, index in zip(answers["scores"], gold["index"], strict=True):
        top = max(scores)
        found.append(top + math.log(sum(math.exp(s - top) for s in scores)) - scores[index])
    return found


def result_rows(answers: Columns, gold: Columns, truth: str) -> list[dict[str, str]]:
    """Rows as a metric reads them; `truth` is the metric's own name for the right answer."""
    columns = zip(gold["key"], gold["gold"], answers["prediction"], strict=True)
    return [{"key": key, truth: right, "prediction": said} for key, right, said in columns]


def means(answers: Answers, gold: Answers, metric: Metric) -> tuple[float | None, float]:
    """The metric (None where no text was written) and the NLL, each a mean over languages."""
    points, losses = [], []
    for language, columns in answers.items():
        values = nll(columns, gold[language])
        losses.append(sum(values) / len(values))
        if "prediction" in columns:
            rows = result_rows(columns, gold[language], metric.truth)
            statistics = metric.statistics(rows)
            points.append(float(metric.aggregate(statistics.sum(axis=0))))
    return (sum(points) / len(points) if points else None), sum(losses) / len(losses)
