"""Trainings that ended badly on dev, and those that were repeated for that with another seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from koinize.adapter.header import WEIGHTS_FILE
from koinize.pipeline.project import Project
from koinize.pipeline.step import Step
from koinize.pipeline.tries import ended_badly, number_of, others_of
from koinize.store import Manifest


def bad_ends(project: Project, names: Collection[str] | None = None) -> Iterator[str]:
    """What is to be said of those that ended badly and stand: of these steps, or of all."""
    for step, others in _trained(project, names):
        if badly := _badly(project, step):
            tries = f" (the best of {len(others) + 1} seeds)" if others else ""
            yield (
                f"{step.name}: {badly}{tries}; fewer epochs, a lower learning rate or another seed "
                "may help"
            )


def repeated(project: Project, names: Collection[str] | None = None) -> Iterator[str]:
    """How many trainings were repeated, and why each of them was."""
    trained = list(_trained(project, names))
    found = [(step, others) for step, others in trained if others]
    if found:
        verb = "was" if len(found) == 1 else "were"
        yield f"{len(found)} of {len(trained)} trainings {verb} repeated with another seed"
    for step, others in found:
        tries = sorted([step, *others], key=number_of)
        said = [f"try {number_of(one)}: {_badly(project, one) or 'ended well'}" for one in tries]
        yield (
            f"{step.name}: of {len(tries)} tries, number {number_of(step)} has the lowest dev loss "
            f"and stands; {'; '.join(said)}"
        )


def equal_seeds(project: Project) -> Iterator[str]:
    """Trainings with a further seed whose adapter is the first seed's: its trainer read no seed."""
    trained = [one for one in project.steps if one.kind == "train" and one.stands]
    found = {one.address: project.store.manifest(one.id) for one in trained}
    for address, made in found.items():
        first = found.get(replace(address, seed=""))
        if address.seed and made and first and _weights(made) == _weights(first):
            yield (
                f"{address}: the same adapter as with the first seed, so it says nothing of what "
                "seeds change; a trainer of your own has to use the seeds in its settings"
            )


def _weights(made: Manifest) -> object:
    return made.files.get(WEIGHTS_FILE)


def _trained(project: Project, names: Collection[str] | None) -> Iterator[tuple[Step, list[Step]]]:
    """The trainings that there are, and the other tries at each: those with such a step, or all."""
    others = others_of(project.steps)
    stands = {
        one.id: one for one in reversed(project.steps) if one.kind == "train" and not one.system.key
    }
    for one, step in sorted(stands.items(), key=lambda pair: pair[1].name):
        tries = others.get(one, [])
        said = names is None or {step.name, *(each.name for each in tries)}.intersection(names)
        if said and project.store.manifest(one) is not None:
            yield step, tries


def _badly(project: Project, step: Step) -> str:
    manifest = project.store.manifest(step.id)
    return ended_badly(manifest.facts) if manifest else ""
