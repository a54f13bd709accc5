"""The other way to set a project up, or to bring it up to date: COMB, trained on all rows.

Several workers shorten either way without making it less work. So what COMB takes stands there
twice: trained by one of them, as koinize would, and by all of them at once, each its part of every
batch. That is estimated in the best case, in which k workers are k times as fast.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from koinize.ledger.address import COMB_ROLES, TRUNK, Address
from koinize.ledger.scopes import SCOPES, Released, Scope, within
from koinize.pipeline.estimate import Estimate, Rates, Schedule, Work, less, schedule
from koinize.pipeline.step import Step, Uses
from koinize.pipeline.systems import COMB, COMB_CONTINUED

TRAIN = ("train", "import")
COMBINED = (COMB, COMB_CONTINUED)
NOTHING = Estimate(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Sides:
    """What an update takes in one scope, and what retraining COMB takes in its place.

    `shared` is `retrain` with COMB trained by all workers at once. `wall` and `machine` are how
    many percent less the update takes, by either clock.
    """

    scope: Scope
    update: Schedule
    retrain: Schedule
    shared: Schedule
    wall: Estimate
    machine: Estimate


@dataclass(frozen=True)
class Comparison:
    """An update of these tasks against retraining on everything, both paying for the same things.

    `scopes` are those that differ, from the narrowest; `besides` what else the plan does, which no
    update needs. `measured` says that COMB was trained here before and its time, scaled to today's
    rows, stands behind `retrain`.
    """

    tasks: tuple[str, ...]
    scopes: tuple[Sides, ...]
    besides: Schedule
    steps_besides: int
    measured: bool
    workers: int


@dataclass(frozen=True)
class SetUp:
    """What these tasks take before there is anything to test, by either way.

    `merged`: the training of every language and every merge. `combined`: COMB's training, by one
    worker; `shared`: by all `workers` at once.
    """

    tasks: tuple[str, ...]
    merged: Schedule
    combined: Schedule
    shared: Schedule
    workers: int


def compare(
    steps: Sequence[Step],
    missing: Sequence[Work],
    present: Collection[str],
    rates: Rates,
    workers: int,
    chosen: Mapping[str, str],
) -> Comparison | None:
    """None unless adapters of a task are missing while others are there: then it is an update.

    `chosen` has the title of what each task would release, as far as it was chosen before. Where
    tasks share an adapter an update of one is tested and chosen in all of them.
    """
    tasks = [task for task in dict.fromkeys(one.step.task for one in missing) if task]
    alternatives = {
        task: _retraining([s for s in steps if s.task == task and s.stands and not s.seed], present)
        for task in tasks
    }
    found = {task: some for task, some in alternatives.items() if some}
    if not found:
        return None
    served = _sharing(steps, found)
    update = [
        one
        for one in missing
        if one.step.task in served
        and not _of_comb(one.step)
        and (one.step.task in found or one.step.kind not in TRAIN)
    ]
    released = {task: _released(steps, task, chosen.get(task)) for task in served}
    paid = [(one, released[one.step.task].scope(one.step.address)) for one in update]
    work = [_work(step, rates) for some in found.values() for step in some]
    besides = [one for one, scope in paid if scope is None]
    plan = partial(schedule, workers=workers, load=rates.load, machines=rates.machines)
    scopes = list[Sides]()
    for scope in (one for one in SCOPES if one in {narrowest for _, narrowest in paid}):
        ours = [one for one, narrowest in paid if within(narrowest, scope)]
        theirs = [one for one in work if one.step.kind == "train" or scope != "training"]
        shared = plan(list(_shared(theirs, workers)))
        scopes.append(_sides(scope, plan(ours), plan(theirs), shared))
    return Comparison(
        tasks=tuple(found),
        scopes=tuple(scopes),
        besides=plan(besides, load=None),  # the model is loaded already
        steps_besides=len(besides),
        measured=all(
            one.step.name in rates.experience.combined for one in work if one.step.kind == "train"
        ),
        workers=workers,
    )


def _sharing(steps: Sequence[Step], tasks: Collection[str]) -> set[str]:
    """These tasks, and those for which the same choice is made: one adapter serves both."""
    choices = [one for one in steps if one.kind == "select" and not one.address.role]
    made = {one.id for one in choices if one.task in tasks}
    return {*tasks, *(one.task for one in choices if one.id in made)}


def _sides(scope: Scope, update: Schedule, retrain: Schedule, shared: Schedule) -> Sides:
    wall = less(update.critical, retrain.critical) or NOTHING
    machine = less(update.parts, retrain.parts) or NOTHING
    return Sides(scope, update, retrain, shared, wall, machine)


def _released(steps: Sequence[Step], task: str, chosen: str | None) -> Released:
    """What the task would release; the first candidate while none was chosen: as good as any."""
    choices = (
        one for one in steps if (one.kind, one.task, one.address.role) == ("select", task, "")
    )
    candidates = [one.title for choice in choices for one in choice.uses.candidates]
    if chosen not in candidates:
        chosen = next(iter(candidates), "")
    trunk = any(one.task == task and one.address.role == TRUNK for one in steps)
    return Released(chosen or "", candidates, trunk)


def set_up(
    steps: Sequence[Step], missing: Sequence[Work], rates: Rates, workers: int
) -> SetUp | None:
    """None unless all adapters of a task are to be trained from the base, in order to be merged."""
    lacking = {one.step.id for one in missing}
    tasks: list[str] = []
    combined: list[Work] = []
    for task in dict.fromkeys(one.step.task for one in missing if one.step.task):
        own = [one for one in steps if one.task == task and one.stands and not one.seed]
        adapters = [one for one in own if one.kind in TRAIN and not _of_comb(one)]
        comb = _training(own, adapters)
        if comb and all(not one.address.role and one.id in lacking for one in adapters):
            tasks.append(task)
            combined.append(_work(comb, rates))
    if not tasks:
        return None
    shared = {one.id for one in steps if one.task in tasks}  # also with a task that was set up
    merged = [
        one
        for one in missing
        if (one.step.task in tasks or one.step.id in shared)
        and one.step.kind in ("train", "merge")
        and not _of_comb(one.step)
        and not one.step.seed
    ]
    return SetUp(
        tasks=tuple(tasks),
        merged=schedule(merged, workers, rates.load, rates.machines),
        combined=schedule(combined, workers, rates.load, rates.machines),
        shared=schedule(list(_shared(combined, workers)), workers, rates.load, rates.machines),
        workers=workers,
    )


def _shared(work: Sequence[Work], workers: int) -> Iterator[Work]:
    """The same work, every training as one part for each worker; the rest waits for all parts."""
    parts: list[Work] = []
    for one in work:
        if one.step.kind == "train":
            for number in range(workers):
                inputs = {**one.step.inputs, "part": str(number)}
                part = replace(one.step, inputs=inputs, after=())
                parts.append(replace(one, step=part, seconds=one.seconds / workers))
    yield from parts
    after = tuple(one.step.id for one in parts)
    for one in work:
        if one.step.kind != "train":
            yield replace(one, step=replace(one.step, after=after))


def _of_comb(step: Step) -> bool:
    return step.system in COMBINED or step.address.role in COMB_ROLES


def _retraining(steps: Sequence[Step], present: Collection[str]) -> list[Step]:
    """COMB's training and its evaluations on test; empty where this is no update of this task."""
    adapters = [one for one in steps if one.kind in TRAIN and not _of_comb(one)]
    there = {one.id in present for one in adapters}
    comb = _training(steps, adapters)
    if there != {True, False} or comb is None:
        return []
    return [comb, *_evaluations(steps, comb)]


def _training(steps: Sequence[Step], adapters: Sequence[Step]) -> Step | None:
    """COMB's step, or one made up of all languages' where the project has no COMB."""
    for one in steps:
        if one.address.role == "comb":
            return replace(one, uses=Uses(), after=())
        if one.address.role == TRUNK and one.kind == "train" and "share" not in one.inputs:
            return replace(one.at(role="comb"), uses=Uses(), after=())
    adapters = [one for one in adapters if not one.address.role]  # each language's from the base
    if not adapters or any(one.kind == "import" or one.uses.parent for one in adapters):
        return None  # trained elsewhere, or trained on: what all rows would take is not known
    units = sum(one.units for one in adapters)
    task = adapters[0].task
    return Step(Address("train", task, role="comb"), units=units, sort=task)


def _evaluations(steps: Sequence[Step], comb: Step) -> Iterator[Step]:
    """One for each language. Every system's evaluation of a language is the same work."""
    seen: set[str] = set()
    for one in steps:
        if one.kind == "evaluate" and one.split == "test" and one.language not in seen:
            seen.add(one.language)
            yield replace(one.at(system=COMB), uses=Uses(adapter=comb.id), after=())


def _work(step: Step, rates: Rates) -> Work:
    """As measured the last time where there was one, else by the rate of its kind."""
    rate = rates.step(step)
    if tally := rates.experience.combined.get(step.name):
        rate = replace(rate, per_unit=tally.seconds / tally.units, error=rate.scatter, learnt=True)
    return Work(step, rate, rate.seconds(step.units))
