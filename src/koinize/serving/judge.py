"""Which explanation fits a server's answers: the decision rule, on arrays alone.

Of each explanation (weights at work, wording of the prompt) we know the log-probabilities of the
tokens that the server named. Its distance on a prompt is the mean absolute difference over these
tokens, in nats. The nearest explanation, by the mean over prompts, is told apart from another one
where, over the prompts on which the two say different things, the median distance of the other is
at least `MARGIN` times its own. Only what is told apart from all others is a verdict. The server's
own noise (rounding, quantisation) is in every distance, so nothing has to be assumed about it: an
adapter that changes less than that noise cannot be told from its base, and that is what is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from koinize.serving.prompts import Wording
from koinize.serving.weights import Weights

MARGIN = 4.0
"""How many times nearer than any other an explanation has to be. What lies between the two is then
at least three times the nearest one's distance, which is the server's noise and what is unknown."""
SHARE = 0.1
"""By how much the adapter's change, as the server shows it, may be off from 1."""
FAR, PART = 10.0, 0.25
"""A prompt is answered otherwise than the rest where it is as many times further away than the
median, and further than this part of what the adapter changes."""
FLOOR = -20.0
"""Natural log-probabilities below this count as this: how unlikely is noise."""

Verdict = Literal[
    "right", "base", "scale", "other", "bos", "end", "template", "truncated",
    "shuffled", "partial", "some", "unknown",
]  # fmt: skip


@dataclass(frozen=True)
class Hypothesis:
    """One explanation: the weights at work, and how the prompts reach them."""

    weights: Weights
    wording: Wording

    @property
    def kinds(self) -> tuple[str, str]:
        """What a verdict says of it, without its name."""
        return self.weights.kind, self.wording.kind


@dataclass(frozen=True)
class Finding:
    """What was found: `nearest` fits best, `rivals` fit as well.

    `distance` is the nearest one's median over prompts, `distances` have the others' by name, over
    the prompts on which they differ from it, and `effect` is what the adapter changes, all in nats;
    `share` how much of that change the server shows, 1 for all of it. `apart` are the
    distances to what should be served, by prompt. `by_count`: only the server's count of tokens
    told the nearest from its rivals. `astray` are prompts that are answered otherwise.
    """

    verdict: Verdict
    nearest: Hypothesis
    rivals: tuple[Hypothesis, ...]
    distance: float
    distances: Mapping[str, float]
    effect: float
    share: float | None
    apart: np.ndarray
    by_count: bool = False
    astray: tuple[int, ...] = ()

    @property
    def is_shared(self) -> bool:
        """Whether `share` says something: of the adapter and its prompts, and of nothing else."""
        return self.verdict in ("right", "partial", "some") and self.share is not None


def judge(
    answers: np.ndarray,
    counts: Sequence[int | None],
    ours: Mapping[Hypothesis, np.ndarray],
    expected: str,
) -> Finding:
    """The finding of one way of asking.

    `answers` (prompts, tokens) has NaN where the server named no such token, `ours` the same of
    each explanation in full, `counts` the server's numbers of tokens. `expected` is the kind of the
    weights that should be at work, "adapter" or "base", with the right wording.
    """
    answers = np.maximum(answers, FLOOR)
    ours = {one: np.maximum(values, FLOOR) for one, values in ours.items()}
    far = {one: distances(answers, values) for one, values in ours.items()}
    right = _find(ours, expected, "right")
    group = _group(far)
    agreeing = [one for one in group if _agrees(one, counts)]
    by_count = len(group) > 1 and 0 < len(agreeing) < len(group)
    nearest, *rivals = agreeing if by_count else group
    base, adapter = _find(ours, "base", "right"), _find(ours, "adapter", "right")
    effect = float(np.median(distances(ours[adapter], ours[base], answers)))
    share = _share(answers, ours[base], ours[adapter])
    verdict = _verdict(nearest, rivals, right)
    astray: tuple[int, ...] = ()
    if verdict == "right" and expected == "adapter" and share is not None:
        verdict = "right" if abs(share - 1) <= SHARE else "partial"
    if verdict == "right":
        limit = max(FAR * float(np.median(far[right])), PART * effect)
        astray = tuple(int(one) for one in np.flatnonzero(far[right] > limit))
        verdict = "some" if astray else "right"
    if verdict != "right" and _is_shuffled(answers, ours[right], far[nearest]):
        verdict, rivals = "shuffled", []
    return Finding(
        verdict=verdict,
        nearest=nearest,
        rivals=tuple(rivals),
        distance=float(np.median(far[nearest])),
        distances={_name(one): _median(far[one], _differ(nearest, one)) for one in far},
        effect=effect,
        share=share,
        apart=far[right],
        by_count=by_count,
        astray=astray,
    )


def distances(one: np.ndarray, other: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Mean absolute difference (prompts,) over the tokens that are named; 0 where none is."""
    named = ~np.isnan(one if where is None else where)
    gaps = np.where(named, np.abs(one - other), 0.0)
    found: np.ndarray = gaps.sum(axis=1) / np.maximum(named.sum(axis=1), 1)
    return found


def _group(far: Mapping[Hypothesis, np.ndarray]) -> list[Hypothesis]:
    """The nearest explanation, then those that it is not told apart from, the nearest first."""
    ordered = sorted(far, key=lambda one: float(far[one].mean()))
    first = ordered[0]
    return [first, *(one for one in ordered[1:] if not _is_apart(first, one, far))]


def _is_apart(first: Hypothesis, other: Hypothesis, far: Mapping[Hypothesis, np.ndarray]) -> bool:
    differ = _differ(first, other)
    near, away = _median(far[first], differ), _median(far[other], differ)
    return away > 0 and away >= MARGIN * near


def _differ(first: Hypothesis, other: Hypothesis) -> np.ndarray:
    """On which prompts the two say different things (prompts,); all, of one and the same."""
    count = len(first.wording.ids)
    if first.weights != other.weights or first == other:
        return np.ones(count, bool)
    pairs = zip(first.wording.ids, other.wording.ids, strict=True)
    return np.array([one != another for one, another in pairs])


def _median(values: np.ndarray, where: np.ndarray) -> float:
    return float(np.median(values[where]))


def _agrees(one: Hypothesis, counts: Sequence[int | None]) -> bool:
    """Whether the server read as many tokens of every prompt, as far as it says."""
    pairs = zip(counts, one.wording.ids, strict=True)
    return all(count is None or count == len(ids) for count, ids in pairs)


def _verdict(nearest: Hypothesis, rivals: Sequence[Hypothesis], right: Hypothesis) -> Verdict:
    group = (nearest, *rivals)
    (kind, *further) = dict.fromkeys(one.weights.kind for one in group)
    if not further and kind != right.weights.kind:
        return "other" if kind == "adapter" else kind
    if any(one.kinds != nearest.kinds for one in rivals):
        return "unknown"
    return nearest.wording.kind


def _share(answers: np.ndarray, base: np.ndarray, adapter: np.ndarray) -> float | None:
    """How much of the adapter's change the server shows, by least squares; None where the adapter
    changes nothing.
    """
    named = ~np.isnan(answers)
    change = (adapter - base)[named]
    length = float(change @ change)
    return float((answers - base)[named] @ change) / length if length > 0 else None


def _is_shuffled(answers: np.ndarray, right: np.ndarray, nearest: np.ndarray) -> bool:
    """Whether prompts are answered with what belongs to other prompts: at least two are nearer to
    another prompt's answer, by the margin, and so are all together.
    """
    crossed = np.stack([distances(np.broadcast_to(one, right.shape), right) for one in answers])
    best = crossed.min(axis=1)
    own = crossed.diagonal()
    others = int(((best * MARGIN <= own) & (own > 0)).sum())
    return others >= 2 and float(best.mean()) * MARGIN <= float(nearest.mean())


def _find(ours: Mapping[Hypothesis, np.ndarray], weights: str, wording: str) -> Hypothesis:
    return next(one for one in ours if one.kinds == (weights, wording))


def _name(one: Hypothesis) -> str:
    return f"{one.weights.name}, {one.wording.name}"
