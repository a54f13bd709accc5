"""How the languages' adapters interfere with one another: for the report, found once for each set.

No step stands on it, so it is no step: a project whose results are complete gets its figures with
the next report, and no artifact changes. They are kept until an adapter changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from koinize.digest import digest
from koinize.report import Inspection
from koinize.store import Home, Store
from koinize.store.record import read_record, write_record
from koinize.store.typed import fitting

VERSION = 1  # raised by whoever changes what is measured


def interference(
    store: Store, home: Path, task: str, adapters: Mapping[str, str], trunk: str = ""
) -> Inspection | None:
    """What inspecting these adapters finds; they are given by language with their artifacts' ids.

    Where they started from a trunk, that is of their differences from it. None for fewer than two.
    Raises KoinizeError when an adapter is missing or changed.
    """
    if len(adapters) < 2:
        return None
    wanted = digest([VERSION, dict(adapters), *([trunk] if trunk else [])])
    path = Home(home).interference(task)
    kept = read_record(path) or {}
    if kept.get("of") == wanted and (known := fitting(Inspection, kept.get("figures"))):
        return known
    folders = {language: store.open(one).folder for language, one in adapters.items()}
    figures = _measure(folders, store.open(trunk).folder if trunk else None)
    with suppress(OSError):  # a full disk, or a project that may only be read
        path.parent.mkdir(exist_ok=True)
        write_record(path, {"of": wanted, "figures": figures})
    return figures


def _measure(folders: Mapping[str, Path], trunk: Path | None) -> Inspection:
    from dataclasses import asdict

    from koinize.engine.inspect import inspect_adapters

    found = asdict(inspect_adapters(folders, trunk=trunk))
    figures = {**found, **found["total"]}
    return cast("Inspection", {key: figures[key] for key in Inspection.__annotations__})
