"""The rows that two systems both answered: what a comparison of them can stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from koinize.metrics import Metric, ResultRow
from koinize.release.candidate import Candidate

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
class Pair:
    """One language of two systems: row i of both is the same example."""

    overlap: Overlap
    ours: Rows
    theirs: Rows


def pair_up(ours: Candidate, theirs: Mapping[str, Rows]) -> dict[str, Pair]:
    """What can be compared, by language; in a language that one side lacks nothing can."""
    return {
        language: _pair(ours, theirs[language], language)
        for language in ours.rows
        if language in theirs
    }


def can_compare(metric: Metric, pair: Pair) -> bool:
    """Whether the other side was asked for what the metric reads, as for what is written freely."""
    return metric.reads != "free" or all(map(metric.can_read, pair.theirs))


def _pair(ours: Candidate, theirs: Rows, language: str) -> Pair:
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
    # The prompt is the key's, so rows of an older koinize, which lack it, have ours.
    asked = [{name: new[key][name] for name in ("prompt",) if name in new[key]} for key in same]
    theirs = [{**question, **old[key]} for key, question in zip(same, asked, strict=True)]
    return Pair(overlap, [new[key] for key in same], theirs)
