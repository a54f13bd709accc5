"""Artifacts that nothing refers to: no step of today, no name, no release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koinize.errors import KoinizeError
from koinize.pipeline import Project
from koinize.pipeline.run import locked
from koinize.release.archive import RELEASES, Releases


@dataclass(frozen=True)
class Garbage:
    """An artifact that nothing refers to, with the name it once had and its size on disk."""

    id: str
    name: str
    bytes: int


def garbage(project: Project) -> list[Garbage]:
    """What could go, the largest first. Nothing is touched.

    The steps of today count beside the names, so that a lost `names.json` costs no training.
    Raises KoinizeError when a release is broken: then nobody knows what it refers to.
    """
    store = project.store
    kept = set(store.names().values()) | {step.id for step in project.steps}
    kept |= _released(project.home)
    found = []
    for artifact_id in store.ids() - kept:
        try:
            artifact = store.manifest(artifact_id)
            name = artifact.name if artifact else "no manifest"
        except KoinizeError:
            name = "broken"
        size = folder_bytes(project.home / "artifacts" / artifact_id)
        found.append(Garbage(artifact_id, name, size))
    return sorted(found, key=lambda one: (-one.bytes, one.id))


def collect(project: Project) -> list[Garbage]:
    """Remove it, holding the project's lock; returns what was removed."""
    with locked(project.home):
        found = garbage(project)
        store = project.store
        for one in found:
            store.discard(one.id)
        store.sweep()
        return found


def folder_bytes(folder: Path) -> int:
    """The sizes of all files below, summed; 0 where there is no folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tasks_released(home: Path) -> list[str]:
    """The tasks that have releases, whether or not the project still names them."""
    folder = home / RELEASES
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


def _released(home: Path) -> set[str]:
    """The ids that releases refer to, of every task that ever had one."""
    ids: set[str] = set()
    for task in tasks_released(home):
        releases = Releases(home, task)
        for version in releases.versions():
            ids.update(releases.open(version).record["artifacts"].values())
    return ids
