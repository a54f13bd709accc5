"""Five adapters of one base in one process, against one after the other."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import koinize.train
from benchmarks.gpu.bases import free_memory, large_base
from benchmarks.gpu.report import Part
from benchmarks.gpu.scale import LANGUAGES, Scale, work_folder
from benchmarks.gpu.training import SPEEDS, Marks, Run, estimated_bytes, ours, speed
from koinize.settings import LoraSpec


def run(part: Part, scale: Scale) -> None:
    """Short rows, as many a step and adapter as one has that is trained alone."""
    if not hasattr(koinize.train, "train_together"):
        part.note("Left out: this version of koinize trains one adapter at a time.")
        return
    one = Run("short", scale.batch, 6, scale.pass_tokens)
    five = replace(one, pass_tokens=scale.pass_tokens // 4)  # of each adapter
    with work_folder(5 * len(LANGUAGES) * scale.factors) as folder:
        if part.attempt("five at once", 10, partial(at_once, part, scale, folder, five)):
            free_memory(scale.device)
            if one.name not in SPEEDS:
                part.attempt("one alone", 6, partial(ours, part, scale, folder, one))
            part.attempt("the ratio", 0, partial(ratio, part, one))
    free_memory(scale.device)


def at_once(part: Part, scale: Scale, folder: Path, one: Run) -> None:
    """What koinize.train.train_together takes for five languages, the same rows a step each."""
    lora = LoraSpec(r=scale.r, alpha=2.0 * scale.r)
    trainings = [
        koinize.train.Training(
            name, one.rows(scale, name), [], lora, one.settings(scale), folder / name
        )
        for name in LANGUAGES
    ]
    marks, started = Marks(), time.monotonic()
    outcomes = koinize.train.train_together(large_base(scale), trainings, marks)
    whole = time.monotonic() - started
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    tokens, targets = (
        sum(getattr(outcome, name) for outcome in outcomes) / 2
        for name in ("tokens", "target_tokens")
    )
    length = tokens / (len(LANGUAGES) * one.batch * one.batches)
    speed(part, scale, "five at once", tokens, targets, marks.second_half, length)
    many = len(LANGUAGES) * one.pass_tokens
    how = f"estimated {estimated_bytes(scale, many, len(LANGUAGES)) / 1e9:.1f} GB; {many} tokens "
    part.row("five at once: memory", outcomes[0].peak_bytes / 1e9, "GB", how + "a pass")
    around = whole - (marks.times[-1] - marks.times[0])
    part.row("five at once: around", around, "s", "factors drawn, first step, adapters written")


def ratio(part: Part, one: Run) -> None:
    """Five at once against the same rows one adapter after the other."""
    times = SPEEDS["five at once"] / SPEEDS[one.name]
    part.row("five at once against one after the other", times, "times the tokens/s", one.name)
