"""Training on a base in 4 bit. The base stays so: this is the last part that uses it."""

from __future__ import annotations

import time
from functools import partial
from importlib.util import find_spec

from benchmarks.gpu.bases import free_memory, large_base, synchronize, turn_into_4_bit
from benchmarks.gpu.report import Part
from benchmarks.gpu.scale import Scale, work_folder
from benchmarks.gpu.training import Run, ours
from koinize.model.quantized import PACKAGE


def run(part: Part, scale: Scale) -> None:
    """Long rows with and without gradient checkpointing, and short ones."""
    if find_spec(PACKAGE) is None:
        part.note(f"Left out: {PACKAGE} is not installed.")
        return
    tokens, batch = scale.pass_tokens, scale.batch
    runs = (
        Run("long", batch, 2, tokens, in_4bit=True),
        Run("long", batch, 2, tokens, checkpointing=True, in_4bit=True),
        Run("short", 4 * batch, 3, tokens, in_4bit=True),
    )
    if not part.attempt("the base in 4 bit", 8, partial(quantize, part, scale)):
        return
    with work_folder(8 * scale.factors) as folder:
        for one in runs:
            free_memory(scale.device)
            part.attempt(one.name, 8, partial(ours, part, scale, folder, one))


def quantize(part: Part, scale: Scale) -> None:
    """The base that the other parts had, its weights drawn anew where none had it."""
    base = large_base(scale)
    synchronize(scale.device)
    started = time.monotonic()
    turn_into_4_bit(base)
    synchronize(scale.device)
    part.row("turning the base's weights into 4 bit", time.monotonic() - started, "s")
