"""Result rows -> scores, verdicts and the choice on dev, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from math import sqrt
from typing import Any

from koinize.gate import (
    Verdict,
    better_somewhere,
    fewest_rows,
    in_every_language,
    smallest_margin,
)
from koinize.metrics import Metric, Score, metrics, score
from koinize.report.calibration import calibration
from koinize.report.collapsed import collapses, confusion
from koinize.report.figures import (
    Answers,
    Calibration,
    CandidateRow,
    Estimate,
    FormerMargin,
    JointRow,
    Margins,
    PooledRow,
    Power,
    ScoreRow,
    SignatureRow,
    SystemRow,
    TaskQuality,
    VerdictRow,
)
from koinize.report.input import System, TaskInput
from koinize.report.sides import Sides
from koinize.search.luck import chances

Rows = Sequence[Mapping[str, Any]]
INDIVIDUAL, SINGLE, MEAN = "individual", "single", "MEAN"


class Judged:
    """What is said of one task's evaluations."""

    def __init__(self, task: TaskInput) -> None:
        self.task = task
        known = {name: metrics.get(name) for name in task.metrics}
        self.metrics = {
            name: one.over(task.labels).among(task.label_texts).by(task.judges.get(name, {}))
            for name, one in known.items()
        }
        self.sides = Sides(task, self.metrics)

    @property
    def chosen(self) -> System | None:
        """The candidate that won on dev."""
        return next((one for one in self.task.systems if one.chosen), None)

    def results(self) -> TaskQuality:
        """The part of a task's results that speaks of quality."""
        scores = [row for split in ("dev", "test") for row in self._scores(split)]
        verdicts = list(self._verdicts())
        return {
            "scores": scores,
            "selection": _selection(self.task, scores, self._chances()),
            "against_mean": self._against_mean(),
            "verdicts": [row for row, _ in verdicts],
            "pooled": list(self._pooled()),
            "power": self._power(),
            "stated": self._stated(),
            "joint": list(_joint(self.task, verdicts)),
            "answers": list(self._answers()),
            "collapsed": list(collapses(self.task)),
            "calibration": list(self._calibration()),
            "signatures": _signatures(self.task),
        }

    def _scores(self, split: str) -> Iterator[ScoreRow]:
        """One row per metric, system and language, and with language None the mean over all."""
        # Nothing is written freely on dev.
        scored = [one for one in self.metrics.items() if split == "test" or one[1].reads != "free"]
        for name, metric in scored:
            for system in self.task.systems:
                found = self._per_language(metric, system.name, split)
                if len(self.task.languages) > 1 and len(found) == len(self.task.languages):
                    found[None] = mean_score(list(found.values()))
                for language, one in found.items():
                    yield {
                        "split": split,
                        "metric": name,
                        "system": system.name,
                        "language": language,
                        **estimate(one),
                        "signature": one.signature,
                    }

    def _per_language(self, metric: Metric, system: str, split: str) -> dict[str | None, Score]:
        evaluations = {
            language: self.sides.evaluation(system, language, split)
            for language in self.task.languages
        }
        return {language: score(metric, one.rows) for language, one in evaluations.items() if one}

    def _verdicts(self) -> Iterator[tuple[VerdictRow, Verdict]]:
        """Each comparison on test, for every language in which both sides were evaluated."""
        for system, reference, name in self._comparisons():
            margin = self.task.margins.get(name, 0.0)
            found = self.sides.compare(system, reference, name, margin) if margin > 0 else {}
            for language, verdict in found.items():
                row = _verdict_row(system, reference, name, verdict)
                yield {**row, "language": language}, verdict

    def _pooled(self) -> Iterator[PooledRow]:
        """Each comparison in the mean over several languages, all of which both answered."""
        several = len(self.task.languages) > 1
        for system, reference, name in self._comparisons():
            margin = self.task.margins.get(name, 0.0)
            if several and margin > 0:
                verdict = self.sides.compare_mean(system, reference, name, margin)
                if verdict:
                    yield _verdict_row(system, reference, name, verdict)

    def _chances(self) -> dict[str, float]:
        """How often each distinct candidate is the best on dev; empty while one is not scored."""
        candidates = [
            one.name for one in self.task.systems if one.kind == "candidate" and not one.same_as
        ]
        rows = {name: self.sides.rows(name, "dev") for name in candidates}
        scored = len(rows) > 1 and all(rows.values())
        return chances(next(iter(self.metrics.values())), rows) if scored else {}

    def _against_mean(self) -> PooledRow | None:
        """The chosen merge less MEAN on test, by the selecting metric, over all languages."""
        name, chosen = self.task.metrics[0], self.chosen
        mean = next((one.name for one in self.task.systems if one.name == MEAN), None)
        margin = self.task.margins.get(name, 0.0)
        if chosen is None or mean is None or not margin > 0:
            return None
        verdict = self.sides.compare_mean(chosen.name, mean, name, margin)
        return _verdict_row(chosen.name, mean, name, verdict) if verdict else None

    def _stated(self) -> Margins | None:
        """When the margins were said, and what the verdicts would be by those that changed."""
        stated = self.task.stated
        if stated is None:
            return None
        changed = {
            name: before
            for name, before in stated.margins.items()
            if name in self.metrics and before != self.task.margins.get(name, 0.0)
        }
        return {
            "utc": stated.utc,
            "beforehand": stated.beforehand,
            "changed": [self._by_former(name, margin) for name, margin in changed.items()],
            "later": [name for name in self.metrics if name not in stated.margins],
        }

    def _by_former(self, name: str, margin: float) -> FormerMargin:
        both = self.chosen.name if self.chosen else "", self.task.reference
        mean = self.sides.compare_mean(*both, name, margin) if margin > 0 else None
        each = self.sides.compare(*both, name, margin) if mean else {}
        return {
            "metric": name,
            "margin": margin,
            "now": self.task.margins.get(name, 0.0),
            "mean": mean.verdict if mean and len(each) > 1 else None,
            "joint": in_every_language(each).verdict if each else None,
        }

    def _power(self) -> Power | None:
        """What the chosen merge's test rows can show; None without a margin or without rows."""
        name = self.task.metrics[0]
        margin = self.task.margins.get(name, 0.0)
        rows = self.sides.rows(self.chosen.name) if self.chosen else {}
        if not rows or not margin > 0:
            return None
        return {
            "metric": name,
            "margin": margin,
            "fewest_rows": fewest_rows(margin),
            "languages": [
                {
                    "language": one,
                    "n": len(rows[one]),
                    "smallest_margin": smallest_margin(len(rows[one])),
                }
                for one in self.task.languages
            ],
        }

    def _answers(self) -> Iterator[Answers]:
        """Of the chosen merge and of the reference, where labels are fixed."""
        for name, language in product(self._compared(), self.task.languages):
            found = self.sides.evaluation(name, language, "test")
            if found and self.task.labels:
                counts = confusion(self.task.labels, found.rows)
                yield {"system": name, "language": language, "counts": counts}

    def _calibration(self) -> Iterator[Calibration]:
        """Of the same, over all languages if there are several, then in each."""
        labels, several = self.task.labels, len(self.task.languages) > 1
        for name in self._compared() if labels else ():
            rows = self.sides.rows(name)
            whole = [(None, [*chain(*rows.values())])] if several and rows else []
            for language, some in (*whole, *rows.items()):
                if found := calibration(labels, some):
                    yield {"system": name, "language": language, **found}

    def _compared(self) -> list[str]:
        chosen = [self.chosen.name] if self.chosen else []
        return list(dict.fromkeys([*chosen, self.task.reference]))

    def _comparisons(self) -> Iterator[tuple[str, str, str]]:
        """The chosen merge on every metric against the reference, against each language's own
        adapter and the best single one; every other system on the selecting metric against the
        reference.
        """
        task, chosen = self.task, self.chosen
        alone = [one.name for one in task.systems if one.kind in (INDIVIDUAL, SINGLE)]
        if chosen:
            references = dict.fromkeys([task.reference, *alone])
            for reference in (one for one in references if one != chosen.same_as):
                yield from ((chosen.name, reference, metric) for metric in task.metrics)
        for system in task.systems:
            if not system.chosen and not system.same_as and system.name != task.reference:
                yield system.name, task.reference, task.metrics[0]


def estimate(one: Score) -> Estimate:
    """A score without its recipe."""
    return {"value": one.value, "low": one.low, "high": one.high, "n": one.n}


def system_row(one: System) -> SystemRow:
    """A system as plain values."""
    return {
        "name": one.name,
        "kind": one.kind,
        "settings": one.settings,
        "chosen": one.chosen,
        "same_as": one.same_as,
        "rank": one.rank,
        "truncation_error": one.truncation_error,
    }


def _verdict_row(system: str, reference: str, metric: str, one: Verdict) -> PooledRow:
    return {
        "system": system,
        "reference": reference,
        "metric": metric,
        "verdict": one.verdict,
        "difference": one.difference,
        "low": one.low,
        "high": one.high,
        "n": one.n,
        "margin": one.margin,
        "p_value": one.p_value,
        "p_better": one.p_better,
        "p_worse": one.p_worse,
        "rows_needed": one.rows_needed,
        "signature": one.signature,
        "level": one.level,
        "error": one.error,
        "by_seed": one.by_seed,
    }


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


def _selection(
    task: TaskInput, scores: Sequence[ScoreRow], best_in: Mapping[str, float]
) -> list[CandidateRow]:
    """The candidates on dev by the selecting metric, the best first, unscored ones last."""
    dev = {
        (row["system"], row["language"]): row
        for row in scores
        if row["split"] == "dev" and row["metric"] == task.metrics[0]
    }
    overall = None if len(task.languages) > 1 else task.languages[0]
    rows: list[CandidateRow] = [
        {
            **system_row(system),
            "best_in": best_in.get(system.name),
            "mean": _brief(dev.get((system.name, overall))),
            "languages": {one: _brief(dev.get((system.name, one))) for one in task.languages},
        }
        for system in task.systems
        if system.kind == "candidate"
    ]
    return sorted(rows, key=lambda row: -row["mean"]["value"] if row["mean"] else 1.0)


def _brief(row: ScoreRow | None) -> Estimate | None:
    if row is None:
        return None
    return {"value": row["value"], "low": row["low"], "high": row["high"], "n": row["n"]}


def _joint(task: TaskInput, verdicts: Sequence[tuple[VerdictRow, Verdict]]) -> Iterator[JointRow]:
    """Per comparison that was made in every language: the claim about all of them together."""
    groups: dict[tuple[str, str, str], dict[str, Verdict]] = {}
    for row, verdict in verdicts:
        key = row["system"], row["reference"], row["metric"]
        groups.setdefault(key, {})[row["language"]] = verdict
    for (system, reference, metric), found in groups.items():
        if len(found) == len(task.languages):
            joint = in_every_language(found)
            yield {
                "system": system,
                "reference": reference,
                "metric": metric,
                "verdict": joint.verdict,
                "p_value": joint.p_value,
                "worse": joint.worse,
                "inconclusive": joint.inconclusive,
                "better": better_somewhere(found),
            }


def _signatures(task: TaskInput) -> list[SignatureRow]:
    """Under which prompt, decoding and data each language's split was scored, and who was; a scale
    that only MEAN was chosen among is no system of the report.
    """
    groups: dict[tuple[str, str, str], list[str]] = {}
    named = {one.name for one in task.systems}
    for one in (one for one in task.evaluations if one.system in named):
        groups.setdefault((one.split, one.language, one.signature), []).append(one.system)
    return [
        {"split": split, "language": language, "signature": signature, "systems": systems}
        for (split, language, signature), systems in sorted(groups.items())
    ]
