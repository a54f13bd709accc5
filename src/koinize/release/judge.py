"""Is the candidate shown to be as good as the release in use, in every language?

Only rows that both answered with one truth can be compared; the others are counted and said. A
language without such a row is not shown to be as good, so the candidate is refused. Beside the
release in use stands the anchor, by default the first release of the channel: many small tolerated
losses in a row are a large one, which only a reference that stays where it is can see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from koinize.digest import digest
from koinize.errors import InputError
from koinize.gate import (
    ERROR,
    POWER,
    Verdict,
    better_somewhere,
    compare,
    compare_mean,
    in_every_language,
    rows_needed,
)
from koinize.metrics import Metric
from koinize.pipeline.work import result_rows
from koinize.release.archive import Release
from koinize.release.attempts import Trial
from koinize.release.candidate import Candidate, answered_alike
from koinize.release.pairs import Overlap, Pair, Rows, can_compare, pair_up

WORST_EXAMPLES = 3


@dataclass(frozen=True)
class Reference:
    """A release with its answers to test rows, by language."""

    release: Release
    rows: Mapping[str, Rows]


@dataclass(frozen=True)
class Comparison:
    """One language on one metric; one that is not `gated` is shown and has no say."""

    language: str
    metric: str
    verdict: Verdict
    gated: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        head = {"language": self.language, "metric": self.metric, "gated": self.gated}
        return {**head, **self.verdict.to_dict()}


@dataclass(frozen=True)
class Drift:
    """The candidate against the anchor; `lost` are the languages that are worse by now."""

    anchor: int
    comparisons: tuple[Comparison, ...]
    lost: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        verdicts = [one.to_dict() for one in self.comparisons]
        return {"anchor": self.anchor, "verdicts": verdicts, "lost": list(self.lost)}


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
    """The whole comparison; `incumbent` is None where the channel had nothing in use. `means` are
    shown: verdicts on the mean over languages, which let nothing pass and stop nothing.
    """

    incumbent: int | None
    comparisons: tuple[Comparison, ...] = ()
    overlaps: Mapping[str, Overlap] | None = None
    notes: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    trial: Trial | None = None
    drift: Drift | None = None
    means: tuple[Comparison, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether every gated comparison shows non-inferiority, no shared language went without,
        and no language is worse than the anchor.
        """
        if self.incumbent is None:
            return True
        if self.unmatched or (self.drift and self.drift.lost):
            return False
        return bool(self.gated) and all(one.verdict.passes for one in self.gated)

    @property
    def gated(self) -> tuple[Comparison, ...]:
        """The comparisons that decide."""
        return tuple(one for one in self.comparisons if one.gated)

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Languages of both sides in which no row is common."""
        overlaps = self.overlaps or {}
        return tuple(language for language, one in overlaps.items() if not one.common)

    @property
    def p_value(self) -> float:
        """That of the claim about all languages: the largest one, and 1 where none was made."""
        return max((one.verdict.p_value for one in self.gated), default=1.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the claim about all languages and metrics together."""
        named = {f"{one.language} {one.metric}": one.verdict for one in self.gated}
        return {
            "passes": self.passes,
            "incumbent": self.incumbent,
            "trial": asdict(self.trial) if self.trial else None,
            "joint": asdict(in_every_language(named)) if named else None,
            "verdicts": [one.to_dict() for one in self.comparisons],
            "means": [one.to_dict() for one in self.means],
            "drift": self.drift.to_dict() if self.drift else None,
            "rows": {name: asdict(one) for name, one in (self.overlaps or {}).items()},
            "notes": list(self.notes),
            "lost": [asdict(one) for one in self.lost],
        }


def comparison_identity(ours: Candidate, theirs: Reference, pairs: Mapping[str, Pair]) -> str:
    """Digest of all that decides the verdict: equal for what would only be a second look."""
    truth = next(iter(ours.metrics.values())).truth
    answers = {
        language: [
            [new["key"], new[truth], new["prediction"], old["prediction"]]
            for new, old in zip(pair.ours, pair.theirs, strict=True)
        ]
        for language, pair in pairs.items()
    }
    reference = theirs.release.record["adapter"]
    return digest([ours.adapter.id, reference, ours.gated_margins, answers, *ours.judges])


def judge(
    ours: Candidate,
    theirs: Reference | None,
    pairs: Mapping[str, Pair],
    trial: Trial | None,
    anchor: Reference | None,
) -> Judgement:
    """Compare a candidate with the release in use on every language and gated metric of the task.

    All have to pass: an intersection-union test (Berger 1982), so each is made at the full level of
    the trial. `pairs` come from `pair_up`.
    """
    if theirs is None or trial is None:
        first = "first release of this channel: there is no release to compare it with"
        return Judgement(None, notes=(first, *_against_baselines(ours)))
    _refuse_unread(ours, theirs, pairs)
    comparisons = _plan_rows(_compare(ours, pairs, ours.metrics, trial.level), trial)
    overlaps = {language: pair.overlap for language, pair in pairs.items()}
    return Judgement(
        incumbent=theirs.release.version,
        comparisons=comparisons,
        overlaps=overlaps,
        notes=tuple(_notes(ours, theirs, overlaps)),
        lost=tuple(
            lost
            for one in comparisons
            if one.gated and not one.verdict.passes
            for lost in _worst(one, ours.metrics[one.metric], pairs[one.language])
        ),
        trial=trial,
        drift=_drift(ours, anchor) if anchor else None,
        means=_means(ours, pairs, trial.level),
    )


def _means(ours: Candidate, pairs: Mapping[str, Pair], level: float) -> tuple[Comparison, ...]:
    """The gated metrics in the mean over the languages that have a row in common."""
    common = {language: pair for language, pair in pairs.items() if pair.overlap.common}
    if len(common) < 2:
        return ()
    new = {language: pair.ours for language, pair in common.items()}
    old = {language: pair.theirs for language, pair in common.items()}
    found = (
        (name, compare_mean(new, old, ours.metrics[name], ours.margins[name], level=level))
        for name in ours.gated
    )
    return tuple(Comparison("mean", name, verdict, gated=False) for name, verdict in found)


def _against_baselines(ours: Candidate) -> Iterator[str]:
    """What a first release is beside the base model and COMB: to be known, without a say."""
    several = len(ours.rows) > 1
    where = f"the mean of {len(ours.rows)} languages" if several else next(iter(ours.rows))
    for title, rows in ours.baselines.items():
        for name in ours.gated:
            found = compare_mean(ours.rows, rows, ours.metrics[name], ours.margins[name])
            yield (
                f"against {title}, in {where}: {found.difference:+.2f} points of {name} "
                f"({found.low:+.2f} to {found.high:+.2f}), verdict: {found.verdict} (margin "
                f"{found.margin:g})"
            )


def _compare(
    ours: Candidate, pairs: Mapping[str, Pair], names: Iterable[str], level: float
) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(
            language,
            name,
            compare(pair.ours, pair.theirs, ours.metrics[name], ours.margins[name], level=level),
            gated=name in ours.gated,
        )
        for language, pair in pairs.items()
        if pair.overlap.common
        for name in names
        if can_compare(ours.metrics[name], pair)
    )


def _refuse_unread(ours: Candidate, theirs: Reference, pairs: Mapping[str, Pair]) -> None:
    """Raise InputError where the gate asks for what the release in use was never asked."""
    for name in ours.gated:
        if not all(can_compare(ours.metrics[name], pair) for pair in pairs.values()):
            raise InputError(
                f"{theirs.release.name} was answered without `free: true`: the gate cannot compare "
                f"'{name}'",
                remedy="promote without --no-score, so that it answers again; if it has another "
                f"base model, take the margin of '{name}' out",
            )


def _plan_rows(comparisons: tuple[Comparison, ...], trial: Trial) -> tuple[Comparison, ...]:
    """The rows that would decide all gated comparisons together, each for or against, with a
    probability of 80 %, at the level of the next attempt; languages count as independent.
    """
    power = POWER ** (1 / max(1, sum(one.gated for one in comparisons)))
    return tuple(
        replace(one, verdict=_replanned(one.verdict, trial.next_level, power))
        for one in comparisons
    )


def _replanned(found: Verdict, level: float, power: float) -> Verdict:
    if found.rows_needed is None:
        return found
    rows = rows_needed(found.difference, found.error, found.margin, found.n, level, power)
    return replace(found, rows_needed=rows)


def _drift(ours: Candidate, anchor: Reference) -> Drift:
    """A language has drifted when its loss is certain and not shown to be within the margin.

    Certain: the anchor is better in spite of the search over all languages (Holm).
    """
    pairs = pair_up(ours, anchor.rows)
    comparisons = _compare(ours, pairs, ours.gated, ERROR)
    behind = {
        f"{one.language} {one.metric}": compare(
            pairs[one.language].theirs,
            pairs[one.language].ours,
            ours.metrics[one.metric],
            ours.margins[one.metric],
        )
        for one in comparisons
    }
    certain = better_somewhere(behind)
    lost = dict.fromkeys(
        one.language
        for one in comparisons
        if not one.verdict.passes and f"{one.language} {one.metric}" in certain
    )
    return Drift(anchor.release.version, comparisons, tuple(lost))


def rows_file(language: str) -> str:
    """Where a release keeps its result rows of one language."""
    return f"evidence/rows/{language}.jsonl"


def incumbent_rows(release: Release) -> dict[str, list[dict[str, Any]]]:
    """The result rows on test that a release keeps, by language."""
    return {
        language: result_rows(release.folder / rows_file(language))
        for language in release.record["languages"]
    }


def _notes(ours: Candidate, theirs: Reference, overlaps: Mapping[str, Overlap]) -> list[str]:
    incumbent = theirs.release
    notes = [
        f"{language} is new: {incumbent.name} has nothing to compare it with"
        for language in ours.rows
        if language not in theirs.rows
    ]
    notes += [
        f"{language} is no longer part of it: whoever uses {incumbent.name} for it loses it"
        for language in theirs.rows
        if language not in ours.rows
    ]
    notes += [
        f"{language}: compared on the {one.common} rows that both answered; {_left_out(one)}"
        for language, one in overlaps.items()
        if not one.is_whole
    ]
    before, now = incumbent.record["settings"], ours.settings
    same = {
        "base": before["base"] == now["base"],
        "evaluation": answered_alike(before["evaluation"], now["evaluation"]),
    }
    notes += [
        f"the two were scored under different settings of '{section}'"
        for section, one in same.items()
        if not one
    ]
    return notes


def _left_out(one: Overlap) -> str:
    counts = {"new": one.new, "gone": one.gone, "with another truth": one.changed}
    return "left out: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _worst(one: Comparison, metric: Metric, pair: Pair) -> list[Lost]:
    """The rows that cost the most, by the metric of each row on its own."""
    new, old = pair.ours, pair.theirs
    gaps = metric.aggregate(metric.statistics(new)) - metric.aggregate(metric.statistics(old))
    order = np.argsort(gaps, kind="stable")[:WORST_EXAMPLES]
    said = "written" if metric.reads == "free" else "prediction"
    return [
        Lost(
            language=one.language,
            metric=one.metric,
            key=new[index]["key"],
            truth=new[index][metric.truth],
            incumbent=old[index][said],
            candidate=new[index][said],
            loss=-float(gaps[index]),
        )
        for index in order
        if gaps[index] < 0
    ]
