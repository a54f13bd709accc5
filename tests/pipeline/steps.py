"""Steps by the text of their address, for tests that need no graph."""

from __future__ import annotations

from dataclasses import replace

from koinize.ledger.address import alike, read_address
from koinize.pipeline.step import Step


def step_named(name: str, kind: str = "", **more: object) -> Step:
    """A step that reads its own name; `kind` where the name does not say it."""
    address = replace(read_address(name), **({"kind": kind} if kind else {}))
    fields = {"inputs": {"what": name}, "sort": alike(address)} | more
    return Step(address, **fields)
