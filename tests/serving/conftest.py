"""A tiny model, two adapters of it, and prompts."""

from __future__ import annotations

import json
import random

import pytest

from tests.serving.lying import write_adapter, write_base

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "went", "far", "away"]


def write_rows(path, seed, count=12, shape=None):
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 20))) + " =" for _ in range(count)]
    rows = [shape(text) if shape else {"prompt": text} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """What loading a model tells the libraries ends with the test."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """The folders base, chat (the same with a template), mine, older, and en.jsonl, de.jsonl."""
    folder = tmp_path_factory.mktemp("serving")
    base = write_base(folder / "base")
    write_base(folder / "chat", chat=True)
    write_adapter(folder / "mine", base, 1)
    write_adapter(folder / "older", base, 2)
    write_rows(folder / "en.jsonl", 1)
    write_rows(folder / "de.jsonl", 2)
    return folder
