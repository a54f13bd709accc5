"""Every kind of step there is, in one table.

A new kind is one entry here, one file beside this one with a function `perform(job, store, draft)`
that fills the draft and returns its facts, and one line of `pipeline/graph.py`. Files of kinds are
imported only to do a step, so that a plan imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from koinize.report.blocks import Tone

Perform = Callable[..., Mapping[str, Any]]
"""(job, store, draft) -> facts; the types are those of `work` and `store`, which are above."""

# A rate learnt from other work of the kind is within this factor of the truth 19 times out of 20.
OTHER_TASK, OTHER_RECIPE = 3, 10


@dataclass(frozen=True)
class Kind:
    """What koinize knows of one kind of step.

    `version` is raised by whoever changes what such a step computes; its artifacts are then built
    anew. `guess` is the time of one unit of its work, in seconds, on one core of a 2020s server
    with a model of 270 M parameters in bfloat16: what is used until a project's own ledger knows
    better. `strays` is the factor within which a rate of other work of this kind is right. `tone`
    is its colour in the report.
    """

    name: str
    version: int
    guess: float
    needs_model: bool = False
    strays: float = OTHER_TASK
    tone: Tone = "base"
    file: str = ""

    @property
    def other(self) -> float:
        """The relative standard deviation of a rate that was learnt from other work."""
        return math.log(self.strays) / 1.96

    @property
    def perform(self) -> Perform:
        """The function that does such a step, imported now."""
        function: Perform = import_module(f"{__name__}.{self.file or self.name}").perform
        return function

    @property
    def perform_together(self) -> Callable[..., None]:
        """The function (jobs, store, scratch folder, over) that does several such steps at once."""
        file = import_module(f"{__name__}.{self.file or self.name}")
        function: Callable[..., None] = file.perform_together
        return function


KINDS: dict[str, Kind] = {
    one.name: one
    for one in (
        Kind("base", version=1, guess=60.0),
        Kind("train", version=1, guess=1 / 700, needs_model=True, tone="train"),
        Kind("anchors", version=1, guess=1.0),
        Kind("import", version=1, guess=1.0, file="imported"),
        Kind("merge", version=5, guess=5.0, strays=OTHER_RECIPE, tone="merge"),
        Kind("evaluate", version=1, guess=1 / 1800, needs_model=True, tone="test"),
        Kind("judge", version=1, guess=1 / 1800, needs_model=True, tone="test"),
        Kind("search", version=3, guess=1.0, tone="choose"),
        Kind("select", version=1, guess=1.0, tone="choose"),
    )
}
