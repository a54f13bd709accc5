"""A small project whose graph can be planned without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from koinize.pipeline.graph import graph
from koinize.pipeline.inputs import survey
from koinize.pipeline.step import Step
from koinize.spec import load

SPEC = """\
koinize: 1
name: small
base: {model: base}
languages: [en, de]
tasks:
  mood:
    kind: classify
    labels: [good, bad]
    prompt: "{text} ="
training: {epochs: 2}
merge: {candidates: [paper], mean_scales: [1.0, 2.0]}
machine: {executor: inline}
"""


class Small:
    """The project's folder, and its steps as they are now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "data").mkdir()
        for language in ("de", "en"):
            for split, count in (("train", 4), ("dev", 2), ("test", 3)):
                self.rows(language, split, [f"{language} {split} {n}" for n in range(count)])
        self.spec(SPEC)

    def spec(self, text: str) -> None:
        (self.root / "koinize.yaml").write_text(text, encoding="utf-8")

    def rows(self, language: str, split: str, texts: list[str]) -> None:
        rows = [{"text": t, "label": ("good", "bad")[n % 2]} for n, t in enumerate(texts)]
        path = self.root / "data" / f"{language}.{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def steps(self, kept: dict[str, dict[str, str]] | None = None) -> dict[str, Step]:
        spec = load(self.root / "koinize.yaml")
        inputs = survey(spec, self.root, self.root / "memory.json")
        return {step.name: step for step in graph(spec, inputs, "b" * 64, {}, kept or {})}


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)
