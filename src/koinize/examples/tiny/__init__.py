"""The whole pipeline in under a minute: a generated model, generated words in three languages."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

HERE = Path(__file__).parent
ROWS = {"train": 24, "dev": 12, "test": 18}
WORDS = {
    # Which letters mean what differs from language to language, so each has something to learn.
    "de": {"good": "gut fein toll", "bad": "mies fad lau"},
    "en": {"good": "nice fine great", "bad": "poor dull grim"},
    "ja": {"good": "良い 最高 素敵", "bad": "悪い 最低 残念"},
}


def write(folder: Path) -> None:
    """Write koinize.yaml, the rows, and a base model of a few thousand random parameters."""
    from koinize.examples.tiny.make_base import write_tiny_base

    shutil.copyfile(HERE / "koinize.yaml", folder / "koinize.yaml")
    (folder / "data").mkdir()
    for language in WORDS:
        for split, count in ROWS.items():
            lines = (json.dumps(row, ensure_ascii=False) for row in _rows(language, split, count))
            path = folder / "data" / f"{language}.{split}.jsonl"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_tiny_base(folder / "base")


def _rows(language: str, split: str, count: int) -> list[dict[str, str]]:
    draw = random.Random(f"{language} {split}")  # noqa: S311 - not a secret
    rows = []
    for number in range(count):
        label = ("good", "bad")[number % 2]
        words = [draw.choice(WORDS[language][label].split()) for _ in range(3)]
        rows.append({"text": f"{split} {number} {' '.join(words)}", "label": label})
    return rows
