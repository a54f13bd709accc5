"""What is installed, what the machine has, and what in the project is broken and how to mend it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from koinize import __version__, machine
from koinize.digest import short
from koinize.errors import InputError, KoinizeError
from koinize.ledger import Ledger
from koinize.pipeline.project import HOME
from koinize.pipeline.run import locked
from koinize.release.archive import CHANNELS, Releases
from koinize.release.garbage import folder_bytes, tasks_released
from koinize.spec import SPEC_FILE, load
from koinize.store import Store

State = Literal["good", "note", "broken"]

PACKAGES = ("torch", "transformers", "peft", "safetensors", "numpy", "scipy", "pydantic")
GIGABYTE = 1e9
LEAST_FREE_GIGABYTES = 1.0


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, its state, and what it is or how it can be mended."""

    what: str
    state: State
    detail: str


def examine(root: Path) -> list[Check]:
    """Every check of the project in this folder; reads every byte of its artifacts.

    Finds rather than raises: a broken koinize.yaml or ledger is one of the findings.
    """
    home = root / HOME
    checks = [*_versions(), _devices(), _specification(root), _disk(root)]
    if not home.is_dir():
        return [*checks, Check(HOME, "note", "nothing was run here yet")]
    return [*checks, _lock(home), *_ledger(home), *_artifacts(home), *_releases(home)]


def _versions() -> Iterator[Check]:
    yield Check("koinize", "good", f"{__version__}, Python {platform.python_version()}")
    for package in PACKAGES:
        try:
            yield Check(package, "good", metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Check(package, "broken", f"is not installed; run `pip install {package}`")


def _devices() -> Check:
    workers, threads = machine.layout("auto", "auto")
    return Check("device", "good", f"{machine.device()}; {workers} x {threads} threads by default")


def _specification(root: Path) -> Check:
    try:
        spec = load(root / SPEC_FILE)
    except KoinizeError as error:
        return Check(SPEC_FILE, "broken", str(error))
    return Check(
        SPEC_FILE, "good", f"{len(spec.languages)} languages, tasks: {', '.join(spec.tasks)}"
    )


def _disk(root: Path) -> Check:
    free = shutil.disk_usage(root).free / GIGABYTE
    if not os.access(root, os.W_OK):
        return Check("disk", "broken", f"{root} cannot be written; mend its permissions")
    if free < LEAST_FREE_GIGABYTES:
        return Check("disk", "broken", f"only {free:.2f} GB are free; `koinize gc` may help")
    used = folder_bytes(root / HOME) / GIGABYTE
    return Check("disk", "good", f"{free:.1f} GB free, {used:.3f} GB in {HOME}")


def _lock(home: Path) -> Check:
    try:
        with locked(home):
            return Check("lock", "good", "free")
    except InputError as error:
        return Check("lock", "note", error.what)
    except OSError as error:
        return Check("lock", "broken", f"cannot be taken: {error.strerror}; mend the permissions")


def _ledger(home: Path) -> Iterator[Check]:
    try:
        intervals = Ledger(home / "ledger.jsonl").intervals()
    except KoinizeError as error:
        yield Check("ledger", "broken", str(error))
        return
    yield Check("ledger", "good", f"{len(intervals)} intervals, the chain holds")
    if open_ones := sum(one.status == "open" for one in intervals):
        yield Check("ledger", "note", f"{open_ones} intervals are open; the next run closes them")
    latest = max((one.started for one in intervals), default=None)
    if latest and latest > datetime.now(UTC):
        yield Check("clock", "broken", f"the ledger goes on until {latest}; set the clock right")


def _artifacts(home: Path) -> Iterator[Check]:
    store = Store(home)
    ids = sorted(store.ids())
    broken = [found for one in ids if (found := _attempt(short(one), partial(store.open, one)))]
    yield Check("artifacts", "good", f"{len(ids) - len(broken)} of {len(ids)} are whole")
    yield from broken


def _releases(home: Path) -> Iterator[Check]:
    for task in tasks_released(home):
        releases = Releases(home, task)
        versions = releases.versions()
        broken = [
            found
            for one in versions
            if (found := _attempt(f"{task} v{one}", partial(releases.open, one)))
        ]
        whole = f"{len(versions) - len(broken)} of {len(versions)} are whole"
        yield Check(f"releases of {task}", "good", whole)
        yield from broken
        for name in CHANNELS:
            if found := _attempt(f"{task} {name}", partial(_pointed, releases, name)):
                yield found


def _pointed(releases: Releases, channel: str) -> None:
    """Read a pointer, and see that what it points to is there."""
    current = releases.channel(channel).current
    if current is not None and current not in releases.versions():
        raise KoinizeError(
            f"points to v{current}, which is gone",
            remedy="restore that folder from a copy, or roll back",
        )


def _attempt(what: str, read: Callable[[], object]) -> Check | None:
    """None when it can be read, else a finding with what is wrong and the remedy."""
    try:
        read()
    except KoinizeError as error:
        return Check(what, "broken", str(error))
    except OSError as error:
        return Check(what, "broken", f"{error.filename} cannot be read: {error.strerror}")
    return None
