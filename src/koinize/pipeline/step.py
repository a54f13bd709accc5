"""A step: one artifact to be made, and the identity that everything determining it gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from koinize.digest import digest
from koinize.merge.recipe import MergeSettings

VERSIONS = {"base": 1, "train": 1, "import": 1, "merge": 5, "evaluate": 1, "select": 1}
"""Raised by whoever changes what a kind of step computes; its artifacts are then rebuilt."""


WHATIF = "whatif/"
"""How the names of steps begin that answer a question and are no part of the project."""

PARENT = "parent"
"""Label, among what a training uses, of the adapter that it trains on."""


@dataclass(frozen=True)
class Step:
    """One node of the graph.

    `inputs` maps what the step reads to digests ("rows ja", "settings"); `uses` maps what it takes
    from other steps to their ids. Both make its id. `after` only orders: ids that must be there
    first and do not matter for the result. `rows` counts rows per input, for people; `units` is the
    amount of work (bytes of text that pass the model), by which time is predicted. `stale` names
    the inputs that changed since the artifact that this step keeps was made (decision 005). `why`
    is the reason in words, where comparing inputs would not tell it. `settings` has what stands
    behind the digests of settings in `inputs`, without what is at its default, for such reasons.
    """

    kind: str
    name: str
    inputs: Mapping[str, str]
    uses: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    units: int = 0
    task: str = ""
    system: str = ""
    languages: tuple[str, ...] = ()
    split: str = ""
    merge: MergeSettings | None = None
    stale: tuple[str, ...] = ()
    why: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """The digest of kind, code version and everything the step reads."""
        return digest([self.kind, VERSIONS[self.kind], self.identity])

    @property
    def identity(self) -> dict[str, str]:
        """All that determines the artifact, as the manifest keeps it."""
        return {**self.inputs, **self.uses}

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the steps that come first. A parent is no step of today: it is there."""
        made = (one for label, one in self.uses.items() if label != PARENT)
        return (*made, *self.after)
