"""Customer reviews in German, English, French, Japanese and Chinese: positive, mixed, negative."""

from __future__ import annotations

import shutil
from pathlib import Path

HERE = Path(__file__).parent


def write(folder: Path) -> None:
    """Copy koinize.yaml and the data."""
    shutil.copyfile(HERE / "koinize.yaml", folder / "koinize.yaml")
    (folder / "data").mkdir()
    for file in sorted((HERE / "data").glob("*.jsonl")):
        shutil.copyfile(file, folder / "data" / file.name)
