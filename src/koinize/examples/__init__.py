"""Small projects that `koinize init` writes. One package each; its `write` fills a new folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from koinize.catalog import Catalog
from koinize.errors import InputError

examples = Catalog[Callable[[Path], None]]("koinize.examples", "write")


def write_example(name: str, folder: Path) -> None:
    """Write an example into a folder that does not exist yet, whole or not at all.

    Raises InputError for an unknown example or a folder that is there already.
    """
    write = examples.get(name)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            "there is something here already", where=str(folder), remedy="name a new folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".koinize-init-") as temporary:
        built = Path(temporary) / "project"
        built.mkdir()
        write(built)
        if folder.exists():
            folder.rmdir()  # it is empty
        built.rename(folder)
