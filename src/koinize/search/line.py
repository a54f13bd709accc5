"""The line search for a candidate's scale, on dev.

It begins around the scale that the candidate states and goes on past an end for as long as that end
is the best. What it finds is not the best of the scales seen, which is the best by chance as well,
but lies between that one and the stated scale: the nearer to the stated one, the less dev can tell
the two apart. Where it cannot tell them apart at all, the stated scale stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from koinize.metrics import Metric
from koinize.search.evidence import (
    Evidence,
    Rows,
    by_likelihood,
    by_metric,
    mean_likelihood,
    points,
)

STEP = math.sqrt(2)  # from one scale to the next
FARTHEST = 8  # steps from the stated scale: 16 times it, or a sixteenth
DIGITS = 3  # of a scale that is found


@dataclass(frozen=True)
class Seen:
    """A scale, its mean over languages on dev, and that of the gold label's NLL if there is one."""

    scale: float
    points: float
    nll: float | None


@dataclass(frozen=True)
class Decision:
    """What follows from the scales seen so far: those to look at next, or the one that is found.

    `by` names what told the lead from the stated scale: the metric, "nll", or nothing could.
    `evidence` is that comparison (by the metric, where nothing told).
    """

    seen: tuple[Seen, ...]
    lead: float
    by: str
    evidence: Evidence
    next: tuple[float, ...] = ()
    found: float | None = None


def first(stated: float, more: Sequence[float] = ()) -> tuple[float, ...]:
    """The scales to begin with: the stated one, and its neighbours or those that are named."""
    others = {*more} - {stated} or {rounded(stated / STEP), rounded(stated * STEP)}
    return tuple(sorted({stated, *others}))


def decide(
    metric: Metric, labels: Sequence[str], stated: float, rows: Mapping[float, Rows]
) -> Decision:
    """By the rows of each scale so far, the stated one among them.

    The metric decides, and the NLL of the gold label where dev cannot tell by the metric.
    """
    seen = tuple(
        Seen(scale, points(metric, rows[scale]), mean_likelihood(labels, rows[scale]))
        for scale in sorted(rows, key=abs)
    )
    best = max(seen, key=lambda one: (one.points, -abs(math.log(one.scale / stated)))).scale
    evidence = by_metric(metric, rows[best], rows[stated])
    lead, by = best, metric.name if evidence.tells else ""
    if not by and (likely := _by_likelihood(metric, labels, stated, rows, seen)):
        lead, evidence, by = *likely, "nll"
    found = Decision(seen, lead, by, evidence)
    if beyond := _beyond(lead if by else best, stated, seen):
        return replace(found, next=(beyond,))
    scale = rounded(stated * (lead / stated) ** evidence.share) if by else stated
    return replace(found, found=scale)


def _by_likelihood(
    metric: Metric,
    labels: Sequence[str],
    stated: float,
    rows: Mapping[float, Rows],
    seen: Sequence[Seen],
) -> tuple[float, Evidence] | None:
    """The scale of the lowest NLL, if dev can tell it from the stated one, and the metric does not
    speak against it.
    """
    known = [(one.nll, one.scale) for one in seen if one.nll is not None]
    if len(known) < len(seen):
        return None
    likely = min(known)[1]
    evidence = by_likelihood(labels, rows[likely], rows[stated])
    if evidence is None or not evidence.tells or evidence.difference <= 0:
        return None
    against = by_metric(metric, rows[likely], rows[stated])
    return None if against.tells and against.difference < 0 else (likely, evidence)


def _beyond(scale: float, stated: float, seen: Sequence[Seen]) -> float | None:
    """The next scale past the end that this one is; None where it is none, or is the last."""
    ends = abs(seen[0].scale), abs(seen[-1].scale)
    if abs(scale) not in ends or scale == stated:
        return None
    step = round(math.log(scale / stated, STEP)) + (1 if abs(scale) == ends[1] else -1)
    return rounded(stated * STEP**step) if abs(step) <= FARTHEST else None


def rounded(scale: float) -> float:
    """A scale as a table shows it."""
    return float(f"{scale:.{DIGITS}g}")
