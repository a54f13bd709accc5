"""What is installed, what the machine has, and what in the project is broken and how to mend it.

`examine` changes nothing. `mend` removes what the next run makes again, and sets aside what nothing
can make again but a run can go on without; `docs/reliability.md` lists which is which.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from koinize import __version__, machine
from koinize.digest import short
from koinize.errors import BrokenError, InputError, KoinizeError
from koinize.files import read_bytes
from koinize.ledger import Interval, Ledger
from koinize.model import base
from koinize.pipeline import Project, inputs
from koinize.pipeline.results import lacking
from koinize.pipeline.run import locked
from koinize.pipeline.step import Step
from koinize.release.archive import CHANNELS, Releases
from koinize.release.attempts import save_attempts
from koinize.release.audit import contradictions
from koinize.release.garbage import tasks_released
from koinize.spec import SPEC_FILE, load
from koinize.store import Home, Store, sync, write_atomically
from koinize.store.folder import folder_bytes
from koinize.store.home import FOLDER
from koinize.store.record import read_record

State = Literal["good", "note", "broken"]

PACKAGES = ("torch", "transformers", "peft", "safetensors", "numpy", "scipy", "pydantic")
GIGABYTE = 1e9
LEAST_FREE_GIGABYTES = 1.0
BYTES_CHANGED = (
    "other bytes under the old size and times; restore it from a copy or, if the change is meant, "
    "`touch` it: what stands on it is then made again"
)
MEND = "`koinize doctor --mend` keeps what is sound"


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, its state, and what it is or how it can be mended."""

    what: str
    state: State
    detail: str


def examine(root: Path, spec: str = SPEC_FILE) -> list[Check]:
    """Every check of the project in this folder, whose koinize.yaml may have another name.

    Reads every byte of its artifacts, its base model and its data.

    Finds rather than raises: a broken koinize.yaml or ledger is one of the findings.
    """
    home = root / FOLDER
    checks = [*_versions(), _devices(), _specification(root / spec), _disk(root)]
    if not home.is_dir():
        return [*checks, Check(FOLDER, "note", "nothing was run here yet")]
    kept = (_lock(home), *_ledger(home), *_stored(home, root / spec), *_releases(home))
    return [*checks, *kept, *_read_again(root / spec), *_evaluations(root / spec)]


def mend(root: Path, spec: str = SPEC_FILE) -> list[str]:
    """Mend the project in this folder as far as it can be done, and say what was done.

    Holds the lock: raises InputError when another koinize works here, or when a shared store is out
    of reach. A broken release stays, since nothing makes it again.
    """
    home = root / FOLDER
    if not home.is_dir():
        return []
    with locked(home):
        done = [*_mend_artifacts(_store(home, root / spec)), *_mend_ledger(home)]
        done += _mend_evaluations(root / spec)
        for path in _unreadable(home):
            path.unlink()
            done.append(f"removed {path.relative_to(home)}; it is made again")
    return done


def _store(home: Path, file: Path) -> Store:
    """The store that koinize.yaml names; while that cannot be read, what is on this machine."""
    try:
        return Store(home, load(file).store)
    except KoinizeError:  # `_specification` says it
        return Store(home)


def _mend_artifacts(store: Store) -> Iterator[str]:
    for artifact in sorted(store.ids()):
        try:
            store.open(artifact)
        except BrokenError as error:
            store.lose(artifact)
            yield f"removed {error.what}; `koinize run` makes it again if anything needs it"
    if left := len(store.leftovers()):
        store.sweep()
        yield f"removed {left} half-built artifacts of processes that were killed"
    if orphans := store.orphans():
        store.remove_orphans()
        yield f"removed {len(orphans)} artifacts that were never sent whole to the store"
    if store.written_names() is None and store.ids():
        store.point(store.names())
        yield f"wrote {store.home.names.name} again, with the newest artifact of each name"


def _mend_evaluations(file: Path) -> Iterator[str]:
    for step, said in _lacking(file):
        Store(file.parent / FOLDER, load(file).store).lose(step.id)
        yield f"removed {said}; `koinize run` makes it again"


def _lacking(file: Path) -> list[tuple[Step, str]]:
    """Evaluations that no metric of today can read; none where that cannot be known."""
    with suppress(KoinizeError):  # told elsewhere
        return list(lacking(Project.at(file)))
    return []


def _mend_ledger(home: Path) -> Iterator[str]:
    """Keep the lines before the first that does not follow, the whole file beside them, and what
    they say of attempts to replace a release.
    """
    path = Home(home).ledger
    lines = read_bytes(path).split(b"\n")[:-1] if path.exists() else []
    sound = 0
    try:
        for sound, _ in enumerate(Ledger(path).records(), 1):  # noqa: B007 - counts them
            pass
    except KoinizeError as error:
        aside = path.with_name(f"ledger-{datetime.now(UTC):%Y%m%dT%H%M%S}.broken.jsonl")
        shutil.copyfile(path, aside)
        sync(aside)
        save_attempts(home, lines[sound:])
        write_atomically(path, "".join(f"{line.decode()}\n" for line in lines[:sound]))
        Ledger(path).forget()
        yield (
            f"{error.where} was changed: the {sound} lines before it are kept, the whole file is "
            f"{aside.name}; what its other {len(lines) - sound} lines recorded is in no sum now"
        )


def _versions() -> Iterator[Check]:
    yield Check("koinize", "good", f"{__version__}, Python {platform.python_version()}")
    for package in PACKAGES:
        try:
            yield Check(package, "good", metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Check(package, "broken", f"is not installed; run `pip install {package}`")


def _devices() -> Check:
    workers, threads = machine.workers_and_threads("auto", "auto")
    found = f"{machine.device()}; {workers} x {threads} threads by default"
    with suppress(metadata.PackageNotFoundError):
        if machine.gpus() and "+cpu" in (build := metadata.version("torch")):
            advice = "install the build of torch that suits the driver"
            return Check("device", "broken", f"{found}; torch {build} cannot use it: {advice}")
    return Check("device", "good", found)


def _specification(file: Path) -> Check:
    try:
        spec = load(file)
    except KoinizeError as error:
        return Check(file.name, "broken", str(error))
    return Check(
        file.name, "good", f"{len(spec.languages)} languages, tasks: {', '.join(spec.tasks)}"
    )


def _read_again(file: Path) -> Iterator[Check]:
    """What a failing disk did to files whose size and times are as they were."""
    try:
        project = Project(file, load(file))
        model = base.damaged(project.spec.base, project.root, project.files.digests)
    except KoinizeError:
        return  # told elsewhere
    rows = inputs.damaged(project.spec, project.root, project.files.inputs, project.manner)
    for what, found in (("base model", list(map(str, model))), ("data", sorted(set(rows)))):
        if found:
            listed = ", ".join(found)
            yield Check(what, "broken", f"{listed}: {BYTES_CHANGED}")
        else:
            yield Check(what, "good", "every byte is as it was when it was first read")


def _evaluations(file: Path) -> Iterator[Check]:
    """What an older koinize made, and a metric of today cannot read."""
    if found := _lacking(file):
        more = f" and {len(found) - 1} more" if found[1:] else ""
        told = f"{found[0][1]}{more}; `koinize doctor --mend`, then `koinize run` makes it again"
        yield Check("evaluations", "broken", told)


def _disk(root: Path) -> Check:
    free = shutil.disk_usage(root).free / GIGABYTE
    if not os.access(root, os.W_OK):
        return Check("disk", "broken", f"{root} cannot be written; mend its permissions")
    if free < LEAST_FREE_GIGABYTES:
        return Check("disk", "broken", f"only {free:.2f} GB are free; `koinize gc` may help")
    used = folder_bytes(root / FOLDER) / GIGABYTE
    return Check("disk", "good", f"{free:.1f} GB free, {used:.3f} GB in {FOLDER}")


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
        intervals = Ledger(Home(home).ledger).intervals()
    except KoinizeError as error:
        yield Check("ledger", "broken", f"{error}; or {MEND}")
        return
    yield Check("ledger", "good", f"{len(intervals)} intervals, the chain holds")
    mended = any(home.glob("ledger-*.broken.jsonl"))
    for said in contradictions(home):
        told = "the mended ledger lacks what lies beside it" if mended else "restore it from a copy"
        yield Check("ledger", "note" if mended else "broken", f"{said}; {told}")
    if not _ends_whole(Home(home).ledger):
        yield Check("ledger", "note", "its last line was never finished; the next run drops it")
    if open_ones := sum(one.status == "open" for one in intervals):
        yield Check("ledger", "note", f"{open_ones} intervals are open; the next run closes them")
    yield from _clock(intervals, datetime.now(UTC))


def _clock(intervals: Sequence[Interval], now: datetime) -> Iterator[Check]:
    """Whether the clock is behind what was recorded, or was ahead once and is right again."""
    latest = max((one.started for one in intervals), default=now)
    if latest <= now:
        return
    if intervals[-1].started <= now:
        told = f"was ahead once: the ledger has {latest}; durations do not follow it, dates do"
        yield Check("clock", "note", told)
    else:
        yield Check("clock", "broken", f"the ledger goes on until {latest}; set the clock right")


def _ends_whole(path: Path) -> bool:
    content = read_bytes(path) if path.exists() else b""
    return not content or content.endswith(b"\n")


def _stored(home: Path, file: Path) -> Iterator[Check]:
    store = _store(home, file)
    if out_of_reach := _attempt("store", store.ids):
        yield out_of_reach
        return
    yield from _artifacts(store)
    yield from _memory(home, store)


def _memory(home: Path, store: Store) -> Iterator[Check]:
    if store.written_names() is None and store.ids():
        yield Check(store.home.names.name, "broken", f"is lost or cannot be read; {MEND}")
    for path in _unreadable(home):
        yield Check(str(path.relative_to(home)), "note", "cannot be read; it is made again")
    if left := store.leftovers():
        told = f"{len(left)} half-built artifacts of killed processes; the next run removes them"
        yield Check("leftovers", "note", told)
    if orphans := store.orphans():
        told = f"{len(orphans)} artifacts were never sent whole; `koinize gc --delete` removes them"
        yield Check("orphans", "note", told)


def _unreadable(home: Path) -> list[Path]:
    """What is only remembered, and is not as it was written."""
    return [path for path in Home(home).remembered() if read_record(path) is None]


def _artifacts(store: Store) -> Iterator[Check]:
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
