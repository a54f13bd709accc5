"""The same comparison with further seeds (`training.seeds`, decision 024).

The first seed's steps are the project: chosen on dev, tested, released. Another seed repeats what
its comparison stands on, and nothing else: every training behind a system that is compared, with a
seed of its own, the merge by the recipe that was chosen, and the scores on test. Each such step is
the first seed's with its number in its address; that the seed is another one stands in the identity
of trainings alone, and follows from there. What is chosen with the first seed is chosen: as long as
that is open, what needs it waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from koinize.digest import digest
from koinize.errors import InputError
from koinize.ledger.address import COMB_ROLES, System
from koinize.pipeline.generation import rows_of
from koinize.pipeline.lineage import History
from koinize.pipeline.step import SEED, TRY, Step, Uses
from koinize.pipeline.trainings import Trainings
from koinize.settings import MOST_SEEDS

READ_ROWS = ("train", "anchors")
"""The kinds of steps that read training rows."""


def further_of(step: Step) -> int:
    """The number of a training's seed: 0 for the first, which is released."""
    label = step.inputs.get(SEED)
    return next((n for n in range(1, MOST_SEEDS) if digest(n) == label), 0)


def chosen_among(choice: Step, history: History) -> System | None:
    """What was chosen; None while nobody can know."""
    if len(choice.uses.candidates) == 1:
        return next(iter(choice.uses.candidates))
    made = history.store.manifest(choice.id) if history.there(choice) else None
    title = made.facts.get("chosen") if made else None
    return next((one for one in choice.uses.candidates if one.title == title), None)


@dataclass
class Repetition:
    """One further seed of tasks that share an adapter, or of one.

    `steps` are those of the first seed, by id; `trainings` those of each task.
    """

    number: int
    steps: Mapping[str, Step]
    trainings: Mapping[str, Trainings]
    history: History
    _made: dict[str, Step] = field(default_factory=dict)

    def of(self, steps: Iterable[Step]) -> Iterator[Step]:
        """These with this seed, and before them all that they stand on."""
        others = [(step, self._other(step, waits=step.waits)) for step in steps]
        for trainings in self.trainings.values():
            yield from trainings.tries.take()
        made = (one for one in self._made.values() if one.seed)
        yield from (one for one in made if one.kind != "evaluate")
        for step, other in others:  # of one adapter under two names, each under its own
            if other.seed and step.kind == "evaluate":
                yield replace(other, address=replace(step.address, seed=other.seed))

    def _other(self, step: Step, *, waits: bool) -> Step:
        """The same with this seed; itself where no training of today stands behind it. `waits`:
        whether something else may be chosen in its place.
        """
        if step.id not in self._made:
            self._made[step.id] = self._repeated(step, waits=waits)
        return self._made[step.id]

    def _repeated(self, step: Step, *, waits: bool) -> Step:
        uses, waits = self._chosen(step.uses, waits=waits)
        used = {one: self._other(self.steps[one], waits=waits) for one in uses.ids()}
        if step.kind != "train":
            if not any(one.seed for one in used.values()):
                return step
            other = replace(step, waits=waits)
        else:
            inputs = {label: one for label, one in step.inputs.items() if label != TRY}
            other = replace(step, inputs={**inputs, SEED: digest(self.number)}, stale=(), why="")
        other = replace(other, uses=_mapped(uses, used)).at(seed=str(self.number))
        if step.kind == "train":
            other = self.trainings[step.task].settled(other)
        if step.kind in READ_ROWS:
            self._refuse_other_rows(step, other)
        return other

    def _chosen(self, uses: Uses, *, waits: bool) -> tuple[Uses, bool]:
        """The adapter itself in the place of a choice: what was chosen with the first seed."""
        if not uses.choice:
            return uses, waits
        candidates = self.steps[uses.choice].uses.candidates
        chosen = chosen_among(self.steps[uses.choice], self.history)
        found = candidates[chosen or next(iter(candidates))]
        return Uses(adapter=found), waits or chosen is None

    def _refuse_other_rows(self, step: Step, other: Step) -> None:
        """Raise InputError for a training that is missing, of rows that are no longer there."""
        if self.history.there(other):
            return
        split = self.trainings[step.task].split
        seen = rows_of(step.inputs)
        known = self.trainings[step.task].spec.languages
        changed = [
            one for one in seen if one not in known or split(one, "train").digest != seen[one]
        ]
        if not changed:
            return
        of_comb = step.address.role in COMB_ROLES
        flag = "--retrain-comb" if of_comb else "--new-generation"
        raise InputError(
            f"{step.name} was trained before the rows of {', '.join(changed)} changed, and with "
            f"seed {self.number} it never was: now it would be of other rows",
            where="training.seeds",
            remedy=f"`koinize run {flag}` trains it anew with every seed; or set seeds to 1",
        )


def _mapped(uses: Uses, others: Mapping[str, Step]) -> Uses:
    """The same uses of other steps."""

    def id_of(artifact: str) -> str:
        return others[artifact].id if artifact else ""

    return Uses(
        adapters={language: id_of(one) for language, one in uses.adapters.items()},
        adapter=id_of(uses.adapter),
        trunk=id_of(uses.trunk),
        anchors=id_of(uses.anchors),
    )
