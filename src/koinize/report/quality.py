"""Result rows -> scores, verdicts and the choice on dev, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import sqrt
from typing import Any

from koinize.gate import Verdict, better_somewhere, compare, in_every_language
from koinize.metrics import Metric, Score, metrics, score
from koinize.report.input import Evaluation, System, TaskInput

Rows = Sequence[Mapping[str, Any]]
INDIVIDUAL = "individual"


class TaskQuality:
    """One task's evaluations, looked up by system, language and split."""

    def __init__(self, task: TaskInput) -> None:
        self.task = task
        self.metrics = {name: metrics.get(name).over(task.labels) for name in task.metrics}
        self._found = {(one.system, one.language, one.split): one for one in task.evaluations}
        self._twin = {one.name: one.same_as for one in task.systems if one.same_as}

    def evaluation(self, system: str, language: str, split: str) -> Evaluation | None:
        """That system's evaluation; a system with the same weights as another shares its rows."""
        found = self._found.get((system, language, split))
        twin = self._twin.get(system)
        if found or twin is None:
            return found
        return self._found.get((twin, language, split))

    @property
    def chosen(self) -> System | None:
        """The candidate that won on dev."""
        return next((one for one in self.task.systems if one.chosen), None)

    def results(self) -> dict[str, Any]:
        """The part of a task's results that speaks of quality."""
        scores = [row for split in ("dev", "test") for row in self._scores(split)]
        verdicts = list(self._verdicts())
        return {
            "scores": scores,
            "selection": _selection(self.task, scores),
            "verdicts": [row for row, _ in verdicts],
            "joint": _joint(self.task, verdicts),
            "signatures": _signatures(self.task),
        }

    def _scores(self, split: str) -> Iterator[dict[str, Any]]:
        """One row per metric, system and language, and with language None the mean over all."""
        for name, metric in self.metrics.items():
            for system in self.task.systems:
                head = {"split": split, "metric": name, "system": system.name}
                found = self._per_language(metric, system.name, split)
                for language, one in found.items():
                    yield {**head, "language": language, **one.to_dict()}
                if len(self.task.languages) > 1 and len(found) == len(self.task.languages):
                    yield {**head, "language": None, **mean_score(list(found.values())).to_dict()}

    def _per_language(self, metric: Metric, system: str, split: str) -> dict[str, Score]:
        evaluations = {
            language: self.evaluation(system, language, split) for language in self.task.languages
        }
        return {language: score(metric, one.rows) for language, one in evaluations.items() if one}

    def _verdicts(self) -> Iterator[tuple[dict[str, Any], Verdict]]:
        """Each comparison on test, for every language in which both sides were evaluated."""
        for system, reference, name in self._comparisons():
            margin = self.task.margins.get(name, 0.0)
            for language in self.task.languages:
                ours = self.evaluation(system, language, "test")
                theirs = self.evaluation(reference, language, "test")
                if ours and theirs and margin > 0:
                    verdict = compare(ours.rows, theirs.rows, self.metrics[name], margin)
                    head = {"system": system, "reference": reference, "metric": name}
                    yield {**head, "language": language, **verdict.to_dict()}, verdict

    def _comparisons(self) -> Iterator[tuple[str, str, str]]:
        """The chosen merge on every metric against the reference and against each language's own
        adapter; every other system on the selecting metric against the reference.
        """
        task, chosen = self.task, self.chosen
        alone = [one.name for one in task.systems if one.kind == INDIVIDUAL]
        if chosen:
            for reference in dict.fromkeys([task.reference, *alone]):
                yield from ((chosen.name, reference, metric) for metric in task.metrics)
        for system in task.systems:
            if not system.chosen and not system.same_as and system.name != task.reference:
                yield system.name, task.reference, task.metrics[0]


def mean_score(scores: Sequence[Score]) -> Score:
    """The plain mean over languages, with the interval that their intervals imply.

    The distances to the ends add in squares ("square-and-add", Zou and Donner 2008, Statistics in
    Medicine 27), which takes the languages' rows as independent: where they are translations of
    one another the interval is too narrow.
    """
    k = len(scores)
    value = sum(one.value for one in scores) / k
    below = sqrt(sum((one.value - one.low) ** 2 for one in scores)) / k
    above = sqrt(sum((one.high - one.value) ** 2 for one in scores)) / k
    return Score(
        value=value,
        low=value - below,
        high=value + above,
        n=sum(one.n for one in scores),
        signature=f"{scores[0].signature}|mean:{k} languages|interval:square-and-add",
    )


def _selection(task: TaskInput, scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The candidates on dev by the selecting metric, the best first, unscored ones last."""
    dev = {
        (row["system"], row["language"]): row
        for row in scores
        if row["split"] == "dev" and row["metric"] == task.metrics[0]
    }
    overall = None if len(task.languages) > 1 else task.languages[0]
    rows = [
        {
            **asdict(system),
            "mean": _brief(dev.get((system.name, overall))),
            "languages": {one: _brief(dev.get((system.name, one))) for one in task.languages},
        }
        for system in task.systems
        if system.kind == "candidate"
    ]
    return sorted(rows, key=lambda row: -row["mean"]["value"] if row["mean"] else 1.0)


def _brief(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {key: row[key] for key in ("value", "low", "high", "n")} if row else None


def _joint(
    task: TaskInput, verdicts: Sequence[tuple[Mapping[str, Any], Verdict]]
) -> list[dict[str, Any]]:
    """Per comparison that was made in every language: the claim about all of them together."""
    groups: dict[tuple[str, str, str], dict[str, Verdict]] = {}
    for row, verdict in verdicts:
        key = row["system"], row["reference"], row["metric"]
        groups.setdefault(key, {})[row["language"]] = verdict
    return [
        {
            "system": system,
            "reference": reference,
            "metric": metric,
            **asdict(in_every_language(found)),
            "better": better_somewhere(found),
        }
        for (system, reference, metric), found in groups.items()
        if len(found) == len(task.languages)
    ]


def _signatures(task: TaskInput) -> list[dict[str, Any]]:
    """Under which prompt, decoding and data each language's split was scored, and who was."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in task.evaluations:
        groups.setdefault((one.split, one.language, one.signature), []).append(one.system)
    return [
        {"split": split, "language": language, "signature": signature, "systems": systems}
        for (split, language, signature), systems in sorted(groups.items())
    ]
