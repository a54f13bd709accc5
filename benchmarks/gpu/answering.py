"""Scoring short rows with options, and writing texts, at the size of the large base."""

from __future__ import annotations

import time
from functools import partial

import torch

from benchmarks.gpu.bases import choices, free_memory, large_base, peak_gigabytes, synchronize
from benchmarks.gpu.report import Part
from benchmarks.gpu.scale import Scale
from koinize.evaluate import evaluate
from koinize.settings import EvaluationSpec


def run(part: Part, scale: Scale) -> None:
    """Score with the default pass and with a larger one, then write."""
    large_base(scale)
    part.attempt("generating", 5, partial(generating, part, scale))
    for tokens in (EvaluationSpec().batch_tokens, 4 * EvaluationSpec().batch_tokens):
        part.attempt(f"scoring, {tokens} tokens a pass", 5, partial(scoring, part, scale, tokens))


def scoring(part: Part, scale: Scale, tokens: int) -> None:
    """Rows per second, options of two tokens, the base without an adapter."""
    base, rows = large_base(scale), choices(scale.scored, scale.short)
    settings = EvaluationSpec(batch_tokens=tokens)
    evaluate(base, rows[:8], "options", settings)
    free_memory(scale.device)
    seconds = _seconds(partial(evaluate, base, rows, "options", settings), scale)
    how = f"{len(rows)} rows of {scale.short} tokens, 3 options, {seconds:.2f} s, "
    how += f"at most {peak_gigabytes(scale.device):.1f} GB"
    part.row(f"scoring, {tokens} tokens a pass", len(rows) / seconds, "rows/s", how)


def generating(part: Part, scale: Scale) -> None:
    """New tokens per second of one batch."""
    base, rows = large_base(scale), choices(scale.written, scale.short, "de")
    settings = EvaluationSpec(max_new_tokens=scale.new_tokens, batch_tokens=1 << 20)
    evaluate(base, rows[:2], "text", settings.model_copy(update={"max_new_tokens": 2}))
    answers: list[dict[str, object]] = []
    seconds = _seconds(lambda: answers.extend(evaluate(base, rows, "text", settings)), scale)
    tokens = sum(int(str(row["tokens"])) for row in answers)
    step = 1000 * seconds / scale.new_tokens
    how = f"{len(rows)} texts at once, {tokens} tokens in {seconds:.2f} s, {step:.1f} ms a step"
    part.row("generating", tokens / seconds, "tokens/s", how)


def _seconds(work: partial[object] | object, scale: Scale) -> float:
    synchronize(scale.device)
    started = time.monotonic()
    with torch.inference_mode():
        work()  # type: ignore[operator]
    synchronize(scale.device)
    return time.monotonic() - started
