"""Is the candidate shown to be as good as the release in use, in every language?

Both were scored on test rows, each at its own time. Where the test files changed in between, only
rows that both answered can be compared; the others are counted and said. A language with no such
row is not shown to be as good, so the candidate is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from koinize.gate import Verdict, compare, in_every_language
from koinize.metrics import Metric, ResultRow
from koinize.release.archive import Release
from koinize.release.candidate import Candidate

WORST_EXAMPLES = 3

Rows = Sequence[ResultRow]


@dataclass(frozen=True)
class Overlap:
    """The test rows of one language: `common` to both; `new` ones, which the incumbent never
    answered; `gone` ones, which the candidate did not; `changed` ones, whose truth was edited.
    """

    common: int
    new: int
    gone: int
    changed: int

    @property
    def is_whole(self) -> bool:
        """Whether both sides answered the very same rows."""
        return not (self.new or self.gone or self.changed)


@dataclass(frozen=True)
class Comparison:
    """One language on one metric."""

    language: str
    metric: str
    verdict: Verdict


@dataclass(frozen=True)
class Lost:
    """A row that the candidate answers worse than the incumbent. `loss` is in points; the result
    rows do not hold the prompt, so whoever has the data adds it.
    """

    language: str
    metric: str
    key: str
    truth: str
    incumbent: str
    candidate: str
    loss: float
    prompt: str = ""


@dataclass(frozen=True)
class Judgement:
    """The whole comparison; `incumbent` is None where the channel had nothing in use."""

    incumbent: int | None
    comparisons: tuple[Comparison, ...] = ()
    overlaps: Mapping[str, Overlap] | None = None
    notes: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether every comparison shows non-inferiority and no shared language went without."""
        if self.incumbent is None:
            return True
        return (
            bool(self.comparisons)
            and not self.unmatched
            and all(one.verdict.passes for one in self.comparisons)
        )

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Languages of both sides in which no row is common."""
        overlaps = self.overlaps or {}
        return tuple(language for language, one in overlaps.items() if not one.common)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the claim about all languages and metrics together."""
        named = {f"{one.language} {one.metric}": one.verdict for one in self.comparisons}
        return {
            "passes": self.passes,
            "incumbent": self.incumbent,
            "joint": asdict(in_every_language(named)) if named else None,
            "verdicts": [
                {"language": one.language, "metric": one.metric, **one.verdict.to_dict()}
                for one in self.comparisons
            ],
            "rows": {name: asdict(one) for name, one in (self.overlaps or {}).items()},
            "notes": list(self.notes),
            "lost": [asdict(one) for one in self.lost],
        }


def judge(ours: Candidate, incumbent: Release | None) -> Judgement:
    """Compare a candidate with the release in use on every language and metric of the task.

    All have to pass: an intersection-union test (Berger 1982), so each is made at the full level.
    """
    if incumbent is None:
        return Judgement(None, notes=("first release of this channel: nothing to compare with",))
    theirs = incumbent_rows(incumbent)
    shared = [language for language in ours.rows if language in theirs]
    pairs = {language: _pair(ours, theirs[language], language) for language in shared}
    comparisons = tuple(
        Comparison(language, name, compare(one, other, metric, ours.margins[name]))
        for language, (_, one, other) in pairs.items()
        if one
        for name, metric in ours.metrics.items()
    )
    overlaps = {language: overlap for language, (overlap, _, _) in pairs.items()}
    return Judgement(
        incumbent=incumbent.version,
        comparisons=comparisons,
        overlaps=overlaps,
        notes=tuple(_notes(ours, theirs, overlaps, incumbent)),
        lost=tuple(
            lost
            for one in comparisons
            if not one.verdict.passes
            for lost in _worst(one, ours.metrics[one.metric], *pairs[one.language][1:])
        ),
    )


def rows_file(language: str) -> str:
    """Where a release keeps its result rows of one language."""
    return f"evidence/rows/{language}.jsonl"


def incumbent_rows(release: Release) -> dict[str, list[dict[str, Any]]]:
    """The result rows on test that a release keeps, by language."""
    return {
        language: [
            json.loads(line)
            for line in (release.folder / rows_file(language)).read_text("utf-8").split("\n")
            if line
        ]
        for language in release.record["languages"]
    }


def _pair(ours: Candidate, theirs: Rows, language: str) -> tuple[Overlap, Rows, Rows]:
    """The rows that both answered and that have one truth, in the order of their keys."""
    truth = next(iter(ours.metrics.values())).truth
    new, old = ({row["key"]: row for row in rows} for rows in (ours.rows[language], theirs))
    both = sorted(new.keys() & old.keys())
    same = [key for key in both if new[key].get(truth) == old[key].get(truth)]
    overlap = Overlap(
        common=len(same),
        new=len(new.keys() - old.keys()),
        gone=len(old.keys() - new.keys()),
        changed=len(both) - len(same),
    )
    return overlap, [new[key] for key in same], [old[key] for key in same]


def _notes(
    ours: Candidate,
    theirs: Mapping[str, object],
    overlaps: Mapping[str, Overlap],
    incumbent: Release,
) -> list[str]:
    notes = [
        f"{language} is new: {incumbent.name} has nothing to compare it with"
        for language in ours.rows
        if language not in theirs
    ]
    notes += [
        f"{language} is no longer part of it: whoever uses {incumbent.name} for it loses it"
        for language in theirs
        if language not in ours.rows
    ]
    notes += [
        f"{language}: compared on the {one.common} rows that both answered; {_left_out(one)}; "
        f"{incumbent.name} was never evaluated on the test rows of today"
        for language, one in overlaps.items()
        if not one.is_whole
    ]
    before = incumbent.record["settings"]
    notes += [
        f"the two were scored under different settings of '{section}'"
        for section in ("base", "evaluation")
        if before[section] != ours.settings[section]
    ]
    return notes


def _left_out(one: Overlap) -> str:
    counts = {"new": one.new, "gone": one.gone, "with another truth": one.changed}
    return "left out: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _worst(one: Comparison, metric: Metric, new: Rows, old: Rows) -> list[Lost]:
    """The rows that cost the most, by the metric of each row on its own."""
    gaps = metric.aggregate(metric.statistics(new)) - metric.aggregate(metric.statistics(old))
    order = np.argsort(gaps, kind="stable")[:WORST_EXAMPLES]
    return [
        Lost(
            language=one.language,
            metric=one.metric,
            key=new[index]["key"],
            truth=new[index][metric.truth],
            incumbent=old[index]["prediction"],
            candidate=new[index]["prediction"],
            loss=-float(gaps[index]),
        )
        for index in order
        if gaps[index] < 0
    ]
