"""A step: one artifact to be made, and the identity that everything determining it gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from koinize.digest import digest
from koinize.ledger.address import NOBODY, WHATIF, Address, System
from koinize.merge.recipe import MergeSettings
from koinize.pipeline.kinds import KINDS

PARENT = "parent"
"""How a manifest calls the adapter that a training went on from."""

PART = "part"
"""The settings of an evaluation that answers some of the rows: `first` to `last`, as places; where
it is `balanced`, in an order that depends on the rows of all these languages.
"""

TRY = "try"
"""Which try a training is, in its identity, where it is not the first."""

SEED = "seed"
"""Which further seed a training has, in its identity, where it is not that of the release."""

NO_NUMBER = "no_number"
"""The fact of a try that ended without an adapter: the loss was no number."""

WORDS = frozenset(
    {"adapter", "anchors", "answers", "base", "choice", "parent", "recipe", "references", "trunk"}
)
"""What labels of an identity say besides a language's code."""


@dataclass(frozen=True)
class Uses:
    """The ids of the steps that a step takes something from, by what that is.

    `adapters`: what is merged, by language. `adapter`: the one that an evaluation scores, or that a
    merge is a multiple of; `choice`: the choice whose adapter an evaluation scores instead.
    `parent`: the adapter that a training goes on from. `trunk`: what branches started from, of a
    branch and of a merge; `anchors`: the frozen rows that a branch sees besides its own; `answers`:
    the evaluation that is judged; `references`: the step in which its judge read the references of
    dev. Of a choice, `candidates` has the adapters by system and
    `scores`, as of a step of a search, the evaluations (or what judged them) by system and
    language.
    """

    adapters: Mapping[str, str] = field(default_factory=dict)
    adapter: str = ""
    choice: str = ""
    parent: str = ""
    trunk: str = ""
    anchors: str = ""
    answers: str = ""
    references: str = ""
    scores: Mapping[tuple[System, str], str] = field(default_factory=dict)
    candidates: Mapping[System, str] = field(default_factory=dict)

    def labelled(self) -> dict[str, str]:
        """Every id by a label that no other has: the part of an identity that steps stand for."""
        found = {_label(language): one for language, one in self.adapters.items()}
        for (system, language), one in self.scores.items():
            found[f"{system.title}|{_label(language)}"] = one
        for system, one in self.candidates.items():
            found[f"{system.title}|adapter"] = one
        for name in ("adapter", "choice", "parent", "trunk", "anchors", "answers", "references"):
            if one := getattr(self, name):
                found[name] = one
        return found

    def ids(self) -> Iterator[str]:
        """All of them."""
        yield from self.labelled().values()


def _label(language: str) -> str:
    """A language's code, unless that is a word of ours."""
    return f"language {language}" if language in WORDS else language


@dataclass(frozen=True)
class Step:
    """One node of the graph.

    `inputs` maps what the step reads to digests ("rows ja", "settings"); `uses` has what it takes
    from other steps. Both make its id. `after` only orders: ids that must be there first and do not
    matter for the result. `rows` counts rows per input, for people; `units` is the amount of work
    (bytes of text that pass the model), by which time is predicted, and `sort` the work that it is
    like. `languages` are those whose rows or adapters it reads. `stale` names the inputs that
    changed since the artifact that this step keeps was made (decision 005). `why` is the reason in
    words, where comparing inputs would not tell it. `settings` has what stands behind the digests
    of settings in `inputs`, without what is at its default, for such reasons. `waits`: a search
    goes on whose end decides what this step reads, so it is planned as far as it is known.
    """

    address: Address
    inputs: Mapping[str, str] = field(default_factory=dict)
    uses: Uses = Uses()
    after: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    units: int = 0
    sort: str = ""
    languages: tuple[str, ...] = ()
    merge: MergeSettings | None = None
    stale: tuple[str, ...] = ()
    why: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    waits: bool = False

    @cached_property
    def id(self) -> str:
        """The digest of kind, code version and everything the step reads."""
        return digest([self.kind, KINDS[self.kind].version, self.identity])

    @cached_property
    def identity(self) -> dict[str, str]:
        """All that determines the artifact, as the manifest keeps it."""
        return {**self.inputs, **self.uses.labelled()}

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The ids of the steps that come first. A parent is no step of today: it is there."""
        made = (one for label, one in self.uses.labelled().items() if label != PARENT)
        return (*made, *self.after)

    @property
    def kind(self) -> str:
        """Which entry of `KINDS` does it."""
        return self.address.kind

    @property
    def task(self) -> str:
        """The task that it belongs to; empty for the base model."""
        return self.address.task

    @property
    def system(self) -> System:
        """Whose answers or merge it makes."""
        return self.address.system

    @property
    def language(self) -> str:
        """The one language that it is about; empty where it is about several."""
        return self.address.language

    @property
    def split(self) -> str:
        """The split that it scores."""
        return self.address.split

    @property
    def seed(self) -> str:
        """The number of its seed where that is a further one (decision 024)."""
        return self.address.seed

    @property
    def name(self) -> str:
        """The text of its address, for the store's names and for people."""
        return str(self.address)

    @property
    def asked(self) -> bool:
        """Whether it answers a question and is no part of the project."""
        return self.address.role == WHATIF

    @property
    def stands(self) -> bool:
        """Whether it is what its address says, and no other try at a training."""
        return self.kind != "train" or self.system == NOBODY

    def at(self, **fields: Any) -> Step:  # noqa: ANN401
        """The same step under an address that differs in these fields."""
        return replace(self, address=replace(self.address, **fields))
