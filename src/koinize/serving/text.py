"""The findings in words, and as plain values for machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from koinize.shown import line

if TYPE_CHECKING:
    from koinize.serving.check import Found, Point, Verification

LONGEST = 60  # characters of a prompt's end
MOST_NAMED = 4  # explanations that are listed
WAYS = {"tokens": "token ids", "text": "text", "chat": "messages"}


def verdict(found: Verification) -> str:
    """The answer to the question, in a sentence."""
    wrong = [one for one in found.found if one.finding.verdict != "right"]
    if not wrong:
        said = "serves the adapter"
        if any(one.expected == "base" for one in found.found):
            said += ", and the base under its own name"
        if found.unheard:
            names = " and ".join(f"'{line(model)}'" for model, _, _ in found.unheard)
            way = WAYS[found.unheard[0][1]]
            said += f", but refuses the prompts as users send them, by {way}, as {names}"
        return said
    known = [one for one in wrong if one.finding.verdict != "unknown"]
    first = (known or wrong)[0]
    by_ids = [one for one in found.found if one.way == "tokens" and one.model == first.model]
    if not known and first.way != "tokens" and by_ids and by_ids[0].finding.verdict == "right":
        other = (
            f"gives the model other prompts than in training: asked by {WAYS[first.way]} it does "
            "not answer as it does to the same prompts as token ids (another chat template, say)"
        )
        return other if first.expected == "adapter" else f"under '{line(first.model)}' {other}"
    said = _said(first)
    return said if first.expected == "adapter" else f"under '{line(first.model)}' {said}"


def _said(found: Found) -> str:
    """One finding as a sentence without its subject."""
    finding = found.finding
    group = (finding.nearest, *finding.rivals)
    names = " or ".join(dict.fromkeys(one.weights.name for one in group))
    wordings = " or ".join(dict.fromkeys(one.wording.name for one in group))
    share = "none" if finding.share is None else f"{finding.share:.0%}"
    astray = f"{len(finding.astray)} of {found.prompts} prompts"
    other = f"another adapter: {names}"
    if finding.nearest.weights.kind == "adapter":
        other = "the adapter, where the base should be"
    said = {
        "right": f"serves the {found.expected}",
        "base": "serves the base model: the adapter changes nothing",
        "scale": f"serves the adapter at another scale: {names}",
        "other": f"serves {other}",
        "bos": f"gives the model other prompts than in training: {wordings}",
        "end": f"gives the model other prompts than in training: {wordings}",
        "template": f"puts the prompts into another template: {wordings}",
        "truncated": f"cuts the prompts: it keeps {wordings}",
        "shuffled": "answers prompts with what belongs to other prompts",
        "partial": f"serves a part of the adapter, or another scale: {share} of what it changes",
        "some": f"serves the {found.expected}, and answers {astray} in another way",
        "unknown": f"cannot tell what it serves: {_why(found)}",
    }[finding.verdict]
    if finding.verdict in ("base", "scale", "other") and wordings != group[0].wording.name:
        return said
    has_own = finding.verdict in ("base", "scale", "other") and group[0].wording.kind != "right"
    return f"{said}; and its prompts have {wordings}" if has_own else said


def _why(found: Found) -> str:
    """Why nothing could be told, of a finding whose explanations are too near to one another."""
    finding = found.finding
    group = (finding.nearest, *finding.rivals)
    if finding.effect == 0:
        return "the adapter changes nothing on these prompts"
    nats = f"{finding.distance:.3g} nats"
    if finding.distance > finding.effect / 2:
        return f"nothing that is known explains its answers, the nearest is {nats} away"
    if {"adapter", "base"} <= {one.weights.kind for one in group}:
        return (
            f"the adapter changes these prompts by {finding.effect:.3g} nats, and the nearest "
            f"explanation is {nats} away from the server's answers"
        )
    said = "; ".join(f"{one.weights.name}, {one.wording.name}" for one in group[:MOST_NAMED])
    return f"{nats} away, these are too near to one another: {said}"


def lines(found: Verification) -> Iterator[str]:
    """What people are told."""
    owner = f" ({found.owner})" if found.owner else ""
    yield f"{found.title}, asked of {found.url}{owner}"
    counts = f"{len(found.lengths)} prompts in {', '.join(found.languages)}"
    yield f"{counts}, of {min(found.lengths)} to {max(found.lengths)} tokens"
    for model, way, said in found.refused:
        yield f"'{line(model)}' could not be asked by {WAYS[way]}: {line(said)}"
    for one in found.found:
        yield from _lines(one)
    yield verdict(found)


def _lines(found: Found) -> Iterator[str]:
    finding = found.finding
    yield ""
    yield f"'{line(found.model)}' asked by {WAYS[found.way]}: {_said(found)}"
    group = f"{finding.nearest.weights.name}, {finding.nearest.wording.name}"
    yield f"  nearest: {group}, {finding.distance:.3g} nats away (median of the prompts)"
    others = [
        (name, far)
        for name, far in sorted(finding.distances.items(), key=lambda pair: pair[1])
        if name != group
    ]
    if others:
        yield f"  next: {others[0][0]}, {others[0][1]:.3g} nats away"
    # How much of the change is shown means something while it is this change that is shown.
    share = f", of which the server shows {finding.share:.1%}" if finding.is_shared else ""
    if found.expected == "adapter":
        yield f"  the adapter changes these prompts by {finding.effect:.3g} nats{share}"
    if finding.by_count and finding.verdict != "unknown":
        yield "  only the server's own count of tokens tells the nearest from the next"
    if found.first:
        yield f"  first prompt that diverges: {_point(found.first)}"
    largest = abs(found.farthest.server - found.farthest.ours)
    yield f"  largest difference: {largest:.3g} nats, {_point(found.farthest)}"


def _point(one: Point) -> str:
    tail = one.text if len(one.text) <= LONGEST else f"...{one.text[-LONGEST:]}"
    return (
        f"{one.language} {one.key}, {line(repr(tail))}: token {one.id} {line(repr(one.token))} "
        f"has {one.server:.4f} from the server, {one.ours:.4f} from us, {one.base:.4f} from the "
        "base"
    )


def record(found: Verification) -> dict[str, Any]:
    """The same for machines."""
    return {
        "right": found.is_right,
        "verdict": verdict(found),
        "adapter": found.title,
        "url": found.url,
        "owned_by": found.owner,
        "languages": list(found.languages),
        "prompts": len(found.lengths),
        "refused": [
            {"model": model, "asked_by": way, "said": said} for model, way, said in found.refused
        ],
        "findings": [_record(one) for one in found.found],
    }


def _record(found: Found) -> dict[str, Any]:
    finding = found.finding
    return {
        "model": found.model,
        "asked_by": found.way,
        "expected": found.expected,
        "verdict": finding.verdict,
        "says": _said(found),
        "nearest": [
            {"weights": one.weights.name, "prompt": one.wording.name}
            for one in (finding.nearest, *finding.rivals)
        ],
        "told_by_count": finding.by_count,
        "distance": finding.distance,
        "distances": dict(finding.distances),
        "effect": finding.effect,
        "share": finding.share,
        "tokens": found.tokens,
        "first_divergence": None if found.first is None else asdict(found.first),
        "largest_difference": asdict(found.farthest),
    }
