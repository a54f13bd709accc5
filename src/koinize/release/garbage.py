"""Artifacts that nothing refers to: no step of today, neither by id nor by name, no release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koinize.errors import KoinizeError
from koinize.ledger.address import WHATIF, read_address
from koinize.pipeline import Project
from koinize.pipeline.run import locked
from koinize.release.archive import Releases
from koinize.store import Home
from koinize.store.folder import folder_bytes


@dataclass(frozen=True)
class Garbage:
    """An artifact that nothing refers to, with the name it once had and its size on disk."""

    id: str
    name: str
    bytes: int

    @property
    def kind(self) -> str:
        """`train` of `train/mood/de`, `whatif` of what answered a question; "broken" is one too."""
        address = read_address(self.name)
        return WHATIF if address.role == WHATIF else address.kind


def garbage(project: Project) -> list[Garbage]:
    """What could go, the largest first. Nothing is touched.

    A step of today keeps its artifact, and the one that its name points to: what it was before it
    changed, so that `plan` can say what changed. An adapter that was continued keeps the one it
    went on from, without which it could not be built again. Names of steps that left the project
    keep nothing. How far a training was, when it was ended, is kept while it is a step of today.
    Raises KoinizeError when a release is broken: then nobody knows what it refers to.
    """
    store = project.store
    names = store.names()
    kept = {step.id for step in project.steps}
    kept |= {names[step.name] for step in project.steps if step.name in names}
    kept |= {used for step in project.steps for used in step.uses.ids()}
    kept |= _released(project.home)
    found = []
    for artifact_id in store.ids() - kept:
        try:
            artifact = store.manifest(artifact_id)
            name = artifact.name if artifact else "no manifest"
        except KoinizeError:
            name = "broken"
        found.append(Garbage(artifact_id, name, store.size(artifact_id)))
    today = {step.id for step in project.steps}
    for begun in store.checkpoints() - (today - store.ids()):
        reached = store.checkpoint(begun).recorded()
        size = folder_bytes(project.files.checkpoints / begun)
        found.append(Garbage(begun, reached["name"] if reached else "broken", size))
    return sorted(found, key=lambda one: (-one.bytes, one.id))


def collect(project: Project) -> list[Garbage]:
    """Remove it and the names that point to it, holding the project's lock; returns what it was."""
    with locked(project.home):
        found = garbage(project)
        store = project.store
        for one in found:
            store.discard(one.id)
        gone = {one.id for one in found}
        store.forget(name for name, artifact in store.names().items() if artifact in gone)
        store.sweep()
        store.remove_orphans()
        return found


def tasks_released(home: Path) -> list[str]:
    """The tasks that have releases, whether or not the project still names them."""
    folder = Home(home).releases
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


def _released(home: Path) -> set[str]:
    """The ids that releases refer to, of every task that ever had one."""
    ids: set[str] = set()
    for task in tasks_released(home):
        releases = Releases(home, task)
        for version in releases.versions():
            ids.update(releases.open(version).record["artifacts"].values())
    return ids
