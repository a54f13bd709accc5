"""What is missing, why, and what it will cost, before it costs anything."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mode
from typing import Any

from koinize import machine
from koinize.ledger.address import NOBODY, SEARCH
from koinize.model.manner import ENCODING
from koinize.pipeline.alternative import Comparison, SetUp, compare, set_up
from koinize.pipeline.estimate import Estimate, Rates, Work, schedule
from koinize.pipeline.experience import Experience
from koinize.pipeline.lengths import Lengths, Use
from koinize.pipeline.memory import Need, Passes
from koinize.pipeline.outlook import Outlook, outlooks
from koinize.pipeline.step import Step
from koinize.pipeline.wording import in_words, reworded
from koinize.store import Manifest, Store
from koinize.store.checkpoint import Reached

SHOWN_CHANGES = 3
NEVER, GONE, NEWER = "never done", "its artifact is gone", "koinize computes it differently now"
NEWER_TEXTS = "koinize gives such a base model its texts differently now"
"""The reasons that name nothing."""


@dataclass(frozen=True)
class Missing:
    """A step that has to run, the reason, and the wall seconds that it is expected to take."""

    step: Step
    why: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The missing steps in order, the number of steps in all, and the estimate.

    `wall`: seconds until the last one ends, `workers` at a time. `machine`: the sum of every step's
    share of its machine; what is left of the wall time of all `machines` is idle. `price` is that
    of koinize.yaml, of each machine, or empty. `guessed` names the kinds of missing steps of which
    the ledger knows nothing, `kinds` all of them. `comparison` stands where the missing steps are
    an update, `set_up` where they are what comes before any; `outlook` where a new generation would
    pay. `lengths` says what the missing steps will find of their rows; None while the base model is
    not here to count them. `memory` is what the missing trainings need, None where nobody can say;
    `passes` what `training.batch_tokens: auto` is on the GPUs here. `load`: seconds that a worker
    takes to load the model; 0 while the ledger does not know.
    """

    missing: tuple[Missing, ...]
    total: int
    wall: Estimate
    machine: Estimate
    price: Mapping[str, str]
    guessed: tuple[str, ...]
    kinds: tuple[str, ...]
    comparison: Comparison | None
    set_up: SetUp | None = None
    outlook: tuple[Outlook, ...] = ()
    lengths: Mapping[Use, Lengths] | None = None
    memory: Need | None = None
    passes: Passes | None = None
    machines: int = 1
    load: float = 0.0

    @property
    def search_goes_on(self) -> bool:
        """Whether more steps may follow from the scores of those that are missing."""
        return any(one.step.kind == SEARCH for one in self.missing)

    @property
    def may_repeat(self) -> bool:
        """Whether trainings that end badly will be followed by others with another seed."""
        wait = {need for one in self.missing if one.step.waits for need in one.step.needs}
        trained = (one.step for one in self.missing if one.step.kind == "train")
        return any(one.system != NOBODY or one.id in wait for one in trained)

    def cost(self, wall: Estimate) -> Estimate | None:
        """What all machines cost for so long, idle time included; None without a price."""
        return None if (one := self.worth(wall)) is None else one * self.machines

    def worth(self, machine: Estimate) -> Estimate | None:
        """What so much of a machine's time costs, without what is idle beside it; None without a
        price.
        """
        return machine * (float(self.price["per_hour"]) / 3600) if self.price else None


def plan(
    steps: Sequence[Step],
    store: Store,
    experience: Experience,
    workers: int,
    price: Mapping[str, str],
    broken: Mapping[str, str] | None = None,
    devices: Sequence[str] = (),
) -> Plan:
    """Compare the steps with the store. Reads names and manifests, never a tensor.

    `broken` maps the ids of artifacts that were removed as broken to what was wrong with them.
    `devices` are the machines on which the workers are, as the ledger calls each; by default this
    one. Where they differ, time is predicted by the rates of the most frequent.
    """
    present = store.ids()
    devices = devices or [machine.device()]
    rates = Rates(experience, mode(devices), len(devices))
    once = {step.id: step for step in reversed(steps) if step.id not in present}
    begun = {one: store.checkpoint(one).recorded() for one in store.checkpoints() & once.keys()}
    left = {one: 1 - at["steps"] / max(1, at["planned"]) for one, at in begun.items() if at}
    work = [
        Work(step, rate := rates.step(step), rate.seconds(step.units) * left.get(step.id, 1.0))
        for step in steps
        if once.get(step.id) is step  # a trunk may be COMB as well: that is one training
    ]
    reasons = _Reasons(steps, store, present, broken or {})
    times = schedule(work, workers, rates.load, rates.machines)
    kinds = dict.fromkeys(one.step.kind for one in work)
    known = {one.step.kind for one in work if one.rate.learnt}
    return Plan(
        missing=tuple(
            Missing(one.step, reasons.why(one.step) + _goes_on(begun.get(one.step.id)), one.seconds)
            for one in work
        ),
        total=len(steps),
        wall=times.wall,
        machine=times.machine,
        price=price,
        guessed=tuple(kind for kind in kinds if kind not in known),
        kinds=tuple(kinds),
        comparison=compare(steps, work, present, rates, workers, _chosen(steps, store)),
        set_up=set_up(steps, work, rates, workers),
        outlook=tuple(outlooks(steps, present, rates)),
        machines=len(devices),
        load=rates.load.per_unit if rates.load else 0.0,
    )


def _chosen(steps: Sequence[Step], store: Store) -> dict[str, str]:
    """Task -> the title of what was chosen for it last."""
    names = store.names()
    choices = [one for one in steps if one.kind == "select" and not one.address.role]
    made = {one.task: store.manifest(names[one.name]) for one in choices if one.name in names}
    return {task: str(one.facts.get("chosen", "")) for task, one in made.items() if one}


def _goes_on(at: Reached | None) -> str:
    """Where a training that was ended will go on; nothing for what begins at its beginning."""
    return f"; goes on at step {at['steps']} of {at['planned']}" if at else ""


class _Reasons:
    """Why a step is missing: how what it reads differs from what its name stood for last."""

    def __init__(
        self,
        steps: Sequence[Step],
        store: Store,
        present: Collection[str],
        broken: Mapping[str, str],
    ) -> None:
        self.store, self.present = store, present
        self.steps, self.broken = steps, broken

    @cached_property
    def labels(self) -> dict[str, str]:
        """Id -> name of every step."""
        return {step.id: step.name for step in self.steps}

    @cached_property
    def names(self) -> dict[str, str]:
        """Name -> id of what was current when the last run ended."""
        return self.store.names()

    def why(self, step: Step) -> str:
        last = self.names.get(step.name, "")
        if said := self.broken.get(step.id) or self.broken.get(last):
            return said
        if step.why:
            return step.why
        if last == step.id:
            return GONE
        before = self.store.manifest(last) if last else None
        if before is None:
            return NEVER
        changes = [
            change
            for label in sorted({*before.inputs, *step.identity})
            if before.inputs.get(label) != step.identity.get(label)
            for change in self._changes(label, step, before)
        ]
        changes = list(dict.fromkeys(changes))  # rows of several splits by one change of words
        if len(changes) > SHOWN_CHANGES:
            more = len(changes) - SHOWN_CHANGES + 1
            changes[SHOWN_CHANGES - 1 :] = [f"{more} more inputs changed"]
        return "; ".join(changes) or NEWER

    def _changes(self, label: str, step: Step, before: Manifest) -> list[str]:
        if label not in step.identity:
            return [f"{label} no longer used"]
        if label not in before.inputs:
            return [self._added(label, step)]
        if label in step.rows:
            old = before.facts.get("rows", {}).get(label)
            differs = old not in (None, step.rows[label])
            what = _worded(label, step, before)
            return [f"{what} changed" + (f", {step.rows[label] - old:+d} rows" if differs else "")]
        if label in step.uses.labelled():
            made = "changed" if step.identity[label] in self.present else "is made anew"
            return [f"{self._upstream(label, step)} {made}"]
        said = before.facts.get("settings", {}).get(label)
        return list(_changed_settings(label, said, step.settings.get(label))) or [
            f"{label} changed"
        ]

    def _added(self, label: str, step: Step) -> str:
        if label in step.rows:
            return f"{label} added, {step.rows[label]} rows"
        if label == ENCODING:
            return NEWER_TEXTS
        return f"{self._upstream(label, step)} added"

    def _upstream(self, label: str, step: Step) -> str:
        """The name of a step that this one uses; the label of anything else."""
        return self.labels.get(step.identity[label], label)


def _worded(label: str, step: Step, before: Manifest) -> str:
    """What changed of these rows: the wording around them, or some of them."""
    language = label.rpartition(" ")[2]
    fields = reworded(step, before).get(language)
    return in_words(language, fields) if fields else label


def _changed_settings(
    label: str, before: Mapping[str, Any] | None, now: Mapping[str, Any] | None
) -> Iterator[str]:
    """The settings that differ. What is at its default is in neither mapping."""
    if before is None or now is None:  # made by a koinize that kept their digest alone
        return
    for key in sorted({*before, *now}):
        if key not in before:
            yield f"{label}.{key} set to {now[key]}"
        elif key not in now:
            yield f"{label}.{key} back to its default from {before[key]}"
        elif before[key] != now[key]:
            yield f"{label}.{key} changed from {before[key]} to {now[key]}"
