"""Five adapters of one base in one process, against one after the other."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.gpu.bases import free_memory, large_base
from benchmarks.gpu.report import Part
from benchmarks.gpu.scale import LANGUAGES, Scale, work_folder
from benchmarks.gpu.training import SPEEDS, Marks, Run, estimated_bytes, ours, speed
from koinize.settings import LoraSpec
from koinize.train import Training, train_together


def run(part: Part, scale: Scale) -> None:
    """Short rows, as many a step and adapter as one has that is trained alone."""
    one = Run("short", scale.batch, 6, scale.pass_tokens)
    five = replace(one, pass_tokens=scale.pass_tokens // 4)  # of each adapter
    long = Run("long", scale.batch, 2, scale.pass_tokens)
    with work_folder(5 * len(LANGUAGES) * scale.factors) as folder:
        done = part.attempt("five", 10, partial(grouped, part, scale, folder, five, LANGUAGES))
        free_memory(scale.device)
        if one.name not in SPEEDS:
            part.attempt("one alone", 6, partial(ours, part, scale, folder, one))
        if done:
            part.attempt("the ratio", 0, partial(ratio, part, one))
        # The group's products cost fewer passes over memory than PEFT's layers, also for one.
        part.attempt("a group of one", 8, partial(grouped, part, scale, folder, long, ("en",)))
    free_memory(scale.device)


def grouped(part: Part, scale: Scale, folder: Path, one: Run, languages: tuple[str, ...]) -> None:
    """What train_together takes for these languages, the same rows a step each."""
    free_memory(scale.device)
    lora = LoraSpec(r=scale.r, alpha=2.0 * scale.r)
    trainings = [
        Training(
            name, one.rows(scale, name), [], lora, one.settings(scale), folder / one.kind / name
        )
        for name in languages
    ]
    marks, started = Marks(), time.monotonic()
    outcomes = train_together(large_base(scale), trainings, marks)
    whole = time.monotonic() - started
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    tokens, targets = (
        sum(getattr(outcome, name) for outcome in outcomes) / 2
        for name in ("tokens", "target_tokens")
    )
    what = f"{len(languages)} at once, {one.kind} rows"
    length = tokens / (len(languages) * one.batch * one.batches)
    speed(part, scale, what, tokens, targets, marks.second_half, length)
    many = len(languages) * one.pass_tokens
    estimated = estimated_bytes(scale, one, len(languages)) / 1e9
    how = f"estimated {estimated:.1f} GB; {many} tokens "
    part.row(f"{what}: memory", outcomes[0].peak_bytes / 1e9, "GB", how + "a pass")
    around = whole - (marks.times[-1] - marks.times[0])
    part.row(f"{what}: around", around, "s", "factors drawn, first step, adapters written")


def ratio(part: Part, one: Run) -> None:
    """Five at once against the same rows one adapter after the other."""
    times = SPEEDS[f"{len(LANGUAGES)} at once, short rows"] / SPEEDS[one.name]
    part.row("five at once against one after the other", times, "times the tokens/s", one.name)
