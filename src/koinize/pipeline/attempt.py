"""What one attempt at a step did, where a training was ended and went on: for the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koinize.ledger import Saved
from koinize.store import Store


def saved(store: Store, artifact_id: str, interval: str) -> Saved | None:
    """What this interval's attempt at an artifact has saved; None if nothing."""
    reached = store.checkpoint(artifact_id).recorded()
    if reached is None or reached["attempt"]["interval"] != interval:
        return None
    before = reached["attempt"]
    share = (reached["steps"] - before["steps"]) / max(1, reached["planned"])
    return Saved(
        before["seconds"],
        max(0, reached["tokens"] - before["tokens"]),
        max(0, round(reached["units"] * share)),
    )


def last_attempt(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """An artifact's facts, with the tokens and units of the attempt alone that ended it."""
    before = facts.get("steps_before", 0)
    if not before:
        return facts
    share = max(0.0, 1 - before / max(1, facts["steps"]))
    tokens = max(0, facts["tokens"] - facts["tokens_before"])
    return {**facts, "tokens": tokens, "units": round(facts["units"] * share)}
