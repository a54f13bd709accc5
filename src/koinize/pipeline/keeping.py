"""What stays as it was chosen while only training rows changed (`merge.update`).

The recipe that was chosen is merged again from the adapters of today and tested. The choice, its
scores on dev, the other candidates and the baselines that are merges stand as they were: their
steps are those that made what is in the store, as with a COMB that is kept (decisions 005, 018).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from koinize.digest import digest
from koinize.ledger.address import System
from koinize.pipeline.lineage import History
from koinize.pipeline.step import Step, Uses
from koinize.store import Manifest

OF_AN_UPDATE = ("train rows ", "dev rows ", "new rows ", "replayed rows ", "update")
"""How the inputs begin by which an adapter that was only updated may differ from the one before."""

Choose = Callable[[Mapping[System, Step]], tuple[Step, Collection[Step]]]
"""Candidates -> the step that chooses among them, and the scores that it reads."""


def made_by(adapters: Mapping[str, Step]) -> dict[str, str]:
    """Of every adapter a digest of all that it is made from but for its rows."""
    return {
        name: digest(
            {
                label: one
                for label, one in {**step.inputs, "trunk": step.uses.trunk}.items()
                if not label.startswith(OF_AN_UPDATE)
            }
        )
        for name, step in sorted(adapters.items())
    }


@dataclass(frozen=True)
class Keeping:
    """`adapters` are those of today, as `made_by` says them."""

    history: History
    adapters: Mapping[str, str]

    def as_chosen(self, among: Mapping[System, Step], choose: Choose) -> dict[System, Step] | None:
        """The steps that made these candidates when they were last chosen among.

        None where that choice is today's, or cannot stand for it: other candidates, other dev rows
        or settings of the evaluation, adapters that are made in another way, or something is lost.
        """
        today, _ = choose(among)
        last = self.history.last(today)
        if last is None or last.id == today.id or "chosen" not in last.facts:
            return None
        if last.facts.get("settings", {}).get("adapters") != dict(self.adapters):
            return None
        before = {}
        for system, fresh in among.items():
            made = self.history.before(fresh, last.inputs.get(f"{system.title}|adapter", ""))
            if made is None:
                return None
            before[system] = made
        choice, scores = choose(before)
        others = [one for system, one in before.items() if system.title != last.facts["chosen"]]
        stand = all(map(self.history.there, [choice, *scores, *others]))
        return before if stand and choice.id == last.id else None

    def last_score(self, fresh: Step) -> Step:
        """An evaluation as it was last, on the same rows, of an adapter that is another one now."""
        last = self.history.last(fresh)
        if last is None or last.id == fresh.id or not _same_but_for_the_adapter(fresh, last):
            return fresh
        kept = replace(fresh, inputs=last.inputs, uses=Uses(), stale=("adapter",))
        return kept if kept.id == last.id and self.history.there(kept) else fresh


def _same_but_for_the_adapter(fresh: Step, last: Manifest) -> bool:
    ours, theirs = ({**one, "adapter": ""} for one in (fresh.identity, last.inputs))
    return ours == theirs
