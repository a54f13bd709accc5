"""What releases say of themselves to a report."""

from __future__ import annotations

from koinize.errors import KoinizeError
from koinize.pipeline import Project
from koinize.release.archive import CHANNELS, Releases
from koinize.release.judge import incumbent_rows
from koinize.report import ReleaseInput


def released(project: Project) -> tuple[list[ReleaseInput], list[str]]:
    """Every release of every task in the order of their versions, and a note for each broken one.

    A report about today must not fail because an old release was damaged; `doctor` does.
    """
    found: list[ReleaseInput] = []
    notes: list[str] = []
    for task in project.spec.tasks:
        releases = Releases(project.home, task)
        events = [(name, one) for name in CHANNELS for one in releases.channel(name).events]
        for version in releases.versions():
            try:
                release = releases.open(version)
                rows = incumbent_rows(release)
            except KoinizeError as error:
                notes.append(f"{task}: {error}")
                continue
            channels = dict.fromkeys(name for name, one in events if one.version == version)
            created = str(release.record["created"])
            found.append(ReleaseInput(task, version, tuple(channels), created, rows))
    return found, notes
