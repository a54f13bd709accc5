"""Tokens per second, model FLOPs utilisation and memory of one training, and a peer's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.gpu.bases import (
    OPTION_TOKENS,
    choices,
    free_memory,
    large_base,
    peak_gigabytes,
    synchronize,
    texts,
)
from benchmarks.gpu.report import Part
from benchmarks.gpu.scale import Scale, work_folder
from koinize.model.memory import training_memory
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train
from koinize.train.recompute import recomputing

FORMULA = (
    "FLOPs of a token, the base frozen: 4 N for the N weights of the linear layers (forwards, and "
    "back to their inputs), 6 P for the P parameters of the adapter, 6 L h n for causal attention "
    "over n tokens in L layers of width h; and 4 V h for each target token's logits. Padding and "
    "what is computed twice count for nothing. MFU is against the product measured here. Every "
    "training makes two epochs of the same rows, and the second one is timed."
)


@dataclass(frozen=True)
class Run:
    """One training: rows of a kind, so many of them in a batch, so many batches in an epoch."""

    kind: str
    batch: int
    batches: int
    pass_tokens: int
    checkpointing: bool = False
    in_4bit: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        what = f"{self.kind} rows, {self.batch} a step, {self.pass_tokens} tokens a pass"
        what += ", gradient checkpointing" * self.checkpointing
        return what + ", base in 4 bit" * self.in_4bit

    def rows(self, scale: Scale, language: str = "en") -> list[Example]:
        """Long rows are all alike; short ones differ in length."""
        count = self.batch * self.batches
        if self.kind == "long":
            return texts(count, scale.long, scale.answer, language)
        return choices(count, scale.short, language)

    def settings(self, scale: Scale) -> TrainingSpec:
        """Two epochs; the first one warms up."""
        return TrainingSpec(
            epochs=2,
            batch_size=self.batch,
            batch_tokens=self.pass_tokens,
            max_length=2 * scale.long,
            load_in_4bit=self.in_4bit,
        )


SPEEDS: dict[str, float] = {}
"""Tokens per second, and the peak's FLOP/s, for whoever compares later."""


def run(part: Part, scale: Scale) -> None:
    """The peak, the base, koinize with long and short rows, the peer, then other passes."""
    part.note(FORMULA)
    part.attempt("the peak", 2, partial(peak, part, scale))
    part.attempt("the base", 2, partial(forwards, part, scale))
    tokens, batch = scale.pass_tokens, scale.batch
    first = (Run("long", batch, 2, 2 * tokens), Run("long", batch, 2, tokens),
             Run("short", 4 * batch, 3, tokens))  # fmt: skip
    more = (
        Run("long", batch, 2, 2 * tokens, checkpointing=True),
        Run("long", batch, 1, tokens // 4),
        Run("short", batch, 6, tokens),
        Run("long", batch, 2, tokens, checkpointing=True),
    )
    with work_folder(8 * scale.factors) as folder:
        for one in first:
            part.attempt(one.name, 6, partial(ours, part, scale, folder, one))
            free_memory(scale.device)
        done = part.attempt("PEFT + Trainer", 8, partial(peer, part, scale, folder, trainer))
        free_memory(scale.device)
        if not done or scale.device == "cpu":
            part.attempt("PEFT + plain loop", 6, partial(peer, part, scale, folder, plain_loop))
        free_memory(scale.device)
        for one in more:
            part.attempt(one.name, 8, partial(ours, part, scale, folder, one))
            free_memory(scale.device)


def peak(part: Part, scale: Scale) -> None:
    """TFLOP/s of a large bfloat16 product, the best of four times ten."""
    square = torch.randn(scale.side, scale.side, device=scale.device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(4):
        synchronize(scale.device)
        started = time.monotonic()
        for _ in range(10):
            square @ square
        synchronize(scale.device)
        best = min(best, (time.monotonic() - started) / 10)
    SPEEDS["peak"] = 2 * scale.side**3 / best
    how = f"{scale.side} x {scale.side}, random numbers"
    part.row("bfloat16 product", SPEEDS["peak"] / 1e12, "TFLOP/s", how)


@torch.no_grad()
def forwards(part: Part, scale: Scale) -> None:
    """Forward passes of the base alone: what no training of adapters can exceed."""
    started = time.monotonic()
    base = large_base(scale)
    synchronize(scale.device)
    part.row("drawing the base's weights", time.monotonic() - started, "s")
    count = scale.pass_tokens // scale.long
    ids = torch.ones(count, scale.long, dtype=torch.long, device=scale.device)
    times = []
    for _ in range(4):
        started = time.monotonic()
        base.backbone(input_ids=ids, use_cache=False)
        synchronize(scale.device)
        times.append(time.monotonic() - started)
    tokens = ids.numel()
    needed = tokens * (2.0 * scale.linear + 2.0 * scale.layers * scale.hidden * scale.long)
    how = f"{tokens} tokens in {1000 * min(times):.1f} ms"
    if "peak" in SPEEDS:
        how += f", {100 * needed / min(times) / SPEEDS['peak']:.0f} % of the product's FLOP/s"
    part.row("the base alone, forwards", tokens / min(times), "tokens/s", how)


def flops(scale: Scale, tokens: float, targets: float, length: float) -> float:
    """What training on so many tokens in rows of this length needs: see FORMULA."""
    attention = 6.0 * scale.layers * scale.hidden * length
    head = 4.0 * scale.vocabulary * scale.hidden
    return tokens * (4.0 * scale.linear + 6.0 * scale.factors + attention) + targets * head


def estimated_bytes(scale: Scale, one: Run, adapters: int = 1) -> int:
    """Memory of a training on the device, as `koinize plan` reckons it."""
    tokens = adapters * one.pass_tokens
    share = scale.answer / scale.long if one.kind == "long" else OPTION_TOKENS / scale.short
    found = training_memory(
        scale.decoder,
        LoraSpec(r=scale.r, alpha=2.0 * scale.r),
        one.settings(scale),
        dtype=scale.dtype,
        pass_tokens=tokens,
        target_tokens=round(share * tokens),
        adapters=adapters,
        on_cpu=False,
        recomputed=one.checkpointing,
    )
    return found.total if found else 0  # with dropout nothing is said


class Marks:
    """When each step of a training was told of."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, *_: object) -> None:
        """What a training calls as its `progress`."""
        self.times.append(time.monotonic())

    @property
    def second_half(self) -> float:
        """Seconds from the end of the first of two epochs to the end of the second."""
        return self.times[-1] - self.times[len(self.times) // 2 - 1]


def ours(part: Part, scale: Scale, folder: Path, one: Run) -> None:
    """koinize's own loop."""
    rows, marks, started = one.rows(scale), Marks(), time.monotonic()
    lora = LoraSpec(r=scale.r, alpha=2.0 * scale.r)
    out = folder / one.name.replace(" ", "-")
    base = large_base(scale)
    with recomputing(base.backbone) if one.checkpointing else nullcontext():
        report = train(base, rows, [], lora, one.settings(scale), out, marks)
    whole = time.monotonic() - started
    tokens, targets = report.tokens / 2, report.target_tokens / 2
    speed(part, scale, one.name, tokens, targets, marks.second_half, tokens / len(rows))
    how = f"estimated {estimated_bytes(scale, one) / 1e9:.1f} GB"
    part.row(f"{one.name}: memory", report.peak_bytes / 1e9, "GB", how)
    around = whole - (marks.times[-1] - marks.times[0])
    part.row(f"{one.name}: around", around, "s", "adapter put in, first step, adapter written")


def speed(
    part: Part,
    scale: Scale,
    name: str,
    tokens: float,
    targets: float,
    seconds: float,
    length: float,
) -> None:
    """Two rows: tokens per second, and the share of the peak."""
    SPEEDS[name] = tokens / seconds
    how = f"{tokens:.0f} tokens in {seconds:.2f} s, rows of {length:.0f} on average"
    part.row(f"{name}: speed", tokens / seconds, "tokens/s", how)
    reached = flops(scale, tokens, targets, length) / seconds
    if "peak" in SPEEDS:
        how = f"{reached / 1e12:.0f} TFLOP/s"
        part.row(f"{name}: MFU", 100 * reached / SPEEDS["peak"], "%", how)


Batch = list[dict[str, list[int]]]
Loop = Callable[[nn.Module, Batch, Scale, int, Path], list[float]]


def peer(part: Part, scale: Scale, folder: Path, loop: Loop) -> None:
    """PEFT on the same base and rows, three timed steps after one to warm up."""
    name = f"PEFT + {loop.__name__.replace('_', ' ')}, long rows"
    # Full logits in float32 take more memory than all else: half the rows of ours in a pass.
    size = max(1, scale.pass_tokens // scale.long // 2)
    with peft_model(scale) as model:
        marks = loop(model, labelled(scale, 4 * scale.batch), scale, size, folder)
        rows = (len(marks) - 1) * scale.batch
        tokens, targets = rows * scale.long, rows * scale.answer
        speed(part, scale, name, tokens, targets, marks[-1] - marks[0], scale.long)
        part.row(f"{name}: memory", peak_gigabytes(scale.device), "GB", f"{size} rows a pass")


@contextmanager
def peft_model(scale: Scale) -> Iterator[nn.Module]:
    """The base with PEFT's own layers, as its documentation says."""
    from peft import LoraConfig, get_peft_model

    base = large_base(scale)
    config = LoraConfig(
        r=scale.r, lora_alpha=2 * scale.r, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base.model, config)
    try:
        yield model
    finally:
        model.unload()
        base.model.eval().requires_grad_(False)


def labelled(scale: Scale, count: int) -> Batch:
    """Long rows as a Trainer wants them: labels of -100 on the prompt."""
    data = []
    for row in texts(count, scale.long, scale.answer):
        encoder = large_base(scale).encoder
        tokens = encoder.encode(row.prompt, [row.target], max_length=2 * scale.long, end=True)
        head, tail = list(tokens.prompt), list(tokens.targets[0])
        ids, labels = head + tail, [-100] * len(head) + tail
        data.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)})
    return data


def trainer(model: nn.Module, data: Batch, scale: Scale, size: int, folder: Path) -> list[float]:
    """The Hugging Face Trainer; when each of its optimizer steps had ended."""
    from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

    marks: list[float] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: object, **__: object) -> None:
            synchronize(scale.device)
            marks.append(time.monotonic())

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=max(1, scale.batch // size),
        bf16=True,
        use_cpu=scale.device == "cpu",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    collator = default_data_collator
    loop = Trainer(
        model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=[Watch()]
    )
    loop.train()
    return marks


def plain_loop(
    model: nn.Module, data: Batch, scale: Scale, size: int, _folder: Path
) -> list[float]:
    """AdamW, autocast and full logits; when each of its optimizer steps had ended."""
    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 5e-4)
    marks = []
    for step in range(0, len(data), scale.batch):
        batch = data[step : step + scale.batch]
        for at in range(0, len(batch), size):
            rows = batch[at : at + size]
            ids, labels = (
                torch.tensor([row[name] for row in rows], device=scale.device)
                for name in ("input_ids", "labels")
            )
            with torch.autocast(scale.device, torch.bfloat16):
                logits = model(input_ids=ids, use_cache=False).logits
            wanted = labels[:, 1:].reshape(-1)
            loss = cross_entropy(logits[:, :-1].float().flatten(0, 1), wanted)
            (loss * len(rows) / len(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize(scale.device)
        marks.append(time.monotonic())
    return marks
