"""Customer reviews in German, English, French, Japanese and Chinese: positive, mixed, negative.

Two thirds of the Japanese training rows come later, so that there is something to update with.
"""

from __future__ import annotations

import shutil
from pathlib import Path

HERE = Path(__file__).parent
LATER = "ja.train.jsonl"
FIRST_ROWS = 20
"""How many rows of that file are there from the beginning."""


def write(folder: Path) -> None:
    """Copy koinize.yaml and the data; what comes later stands in `later/ja.jsonl`."""
    shutil.copyfile(HERE / "koinize.yaml", folder / "koinize.yaml")
    (folder / "data").mkdir()
    for file in sorted((HERE / "data").glob("*.jsonl")):
        shutil.copyfile(file, folder / "data" / file.name)
    rows = (HERE / "data" / LATER).read_bytes().splitlines(keepends=True)
    (folder / "data" / LATER).write_bytes(b"".join(rows[:FIRST_ROWS]))
    (folder / "later").mkdir()
    (folder / "later" / "ja.jsonl").write_bytes(b"".join(rows[FIRST_ROWS:]))
