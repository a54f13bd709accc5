"""Two systems' answers on the same rows, with every seed, and what the gate says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from koinize.gate import Verdict, compare, compare_mean
from koinize.metrics import Metric, Pair
from koinize.report.input import Evaluation, TaskInput

Rows = Sequence[Mapping[str, Any]]


class Sides:
    """One task's evaluations, looked up by system, language and split."""

    def __init__(self, task: TaskInput, metrics: Mapping[str, Metric]) -> None:
        self.task, self.metrics = task, metrics
        self._found = {(one.system, one.language, one.split): one for one in task.evaluations}
        self._further: dict[tuple[str, str], list[Rows]] = {}
        for one in sorted(task.repeated, key=lambda one: one.seed):
            self._further.setdefault((one.system, one.language), []).append(one.rows)
        self._untrained = {one.name for one in task.systems if one.kind == "base"}
        self._twin = {one.name: one.same_as for one in task.systems if one.same_as}

    def evaluation(self, system: str, language: str, split: str) -> Evaluation | None:
        """That system's evaluation; a system with the same weights as another shares its rows."""
        found = self._found.get((system, language, split))
        twin = self._twin.get(system)
        if found or twin is None:
            return found
        return self._found.get((twin, language, split))

    def rows(self, system: str, split: str = "test") -> dict[str, Rows]:
        """By language; empty where one is missing."""
        found = {one: self.evaluation(system, one, split) for one in self.task.languages}
        rows = {language: one.rows for language, one in found.items() if one}
        return rows if len(rows) == len(found) else {}

    def _further_pairs(self, system: str, reference: str, language: str) -> list[Pair]:
        """The rows of both on test with each further seed; none where one was not trained again."""
        ours, theirs = (self._with_further_seeds(one, language) for one in (system, reference))
        if system in self._untrained:
            ours = self._rows_of(system, language) * len(theirs)
        if reference in self._untrained:
            theirs = self._rows_of(reference, language) * len(ours)
        return list(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else []

    def _with_further_seeds(self, system: str, language: str) -> list[Rows]:
        own = self._further.get((system, language))
        return own or self._further.get((self._twin.get(system, ""), language), [])

    def _rows_of(self, system: str, language: str) -> list[Rows]:
        found = self.evaluation(system, language, "test")
        return [found.rows] if found else []

    def compare(self, system: str, reference: str, name: str, margin: float) -> dict[str, Verdict]:
        """The verdict in every language in which both sides were evaluated, over all seeds."""
        sides = {
            language: (*self._rows_of(system, language), *self._rows_of(reference, language))
            for language in self.task.languages
        }
        return {
            language: compare(
                *both,
                self.metrics[name],
                margin,
                further=self._further_pairs(system, reference, language),
            )
            for language, both in sides.items()
            if len(both) == 2
        }

    def compare_mean(self, system: str, reference: str, name: str, margin: float) -> Verdict | None:
        """The verdict on the mean over languages; None where one was not answered by both."""
        ours, theirs = self.rows(system), self.rows(reference)
        if not (ours and theirs):
            return None
        further = {one: self._further_pairs(system, reference, one) for one in ours}
        return compare_mean(ours, theirs, self.metrics[name], margin, further=further)
