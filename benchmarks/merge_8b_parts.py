"""Where the processor's time of a merge at Llama-3.1-8B's size goes, part by part.

    python benchmarks/merge_8b_parts.py > benchmarks/results/merge_8b_parts.md

Merges the adapters of merge_8b.py with one thread and adds up what each part takes by itself,
without the parts inside it, in CPU seconds of the thread that does it; scaled to 32 layers, which
all have the same shapes. "the rest" is the difference to all CPU seconds of the process: planning,
elementwise work outside the parts, memory, Python.
"""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import merge_8b
import torch

from koinize.adapter import Adapter, AdapterWriter
from koinize.engine import merge_adapters
from koinize.machine import keep_memory
from koinize.merge import approximation, linalg
from koinize.merge.combine import elect
from koinize.merge.spaces import core, knots
from koinize.merge.sparsify import _trimmed

PARTS: list[tuple[Any, str, str]] = [
    (Adapter, "digest", "digests of the inputs"),
    (Adapter, "factors", "reading"),
    (AdapterWriter, "write", "writing"),
    (core, "gram", "Gram matrices of the factors"),
    (knots, "gram", "Gram matrices of the factors"),
    (linalg, "eigh", "eigenproblems"),
    (approximation, "eigh", "eigenproblems"),
    (core, "times_blocks", "block diagonal products"),
    (core, "blocks_times", "block diagonal products"),
    (knots, "times_blocks", "block diagonal products"),
    (knots, "blocks_times", "block diagonal products"),
    (linalg.Basis, "times", "lifting the result"),
    (torch, "mm", "dense updates"),
    (approximation, "_start", "low-rank approximation"),
    (approximation, "krylov_space", "low-rank approximation"),
    (approximation, "gram", "low-rank approximation"),
    (approximation, "times", "low-rank approximation"),
    (approximation, "square_norm", "low-rank approximation"),
    (_trimmed, "stack_threshold", "thresholds"),
    (_trimmed, "bracket", "thresholds"),
    (_trimmed.Waiting, "look", "thresholds"),
    (_trimmed.Waiting, "thresholds", "thresholds"),
    (_trimmed, "shrink", "trimming"),
    (elect, "_total", "election"),
    (elect, "_agreeing", "election"),
]


@contextmanager
def timed_parts() -> Iterator[Counter[str]]:
    """CPU seconds of each part in the block, without those of the parts that it calls."""
    spent: Counter[str] = Counter()
    inner = threading.local()

    def timed(work: Callable[..., Any], part: str) -> Callable[..., Any]:
        def measured_work(*given: object, **named: object) -> object:
            start, before = time.thread_time(), getattr(inner, "seconds", 0.0)
            inner.seconds = 0.0
            try:
                return work(*given, **named)
            finally:
                seconds = time.thread_time() - start
                spent[part] += seconds - inner.seconds
                inner.seconds = before + seconds

        return measured_work

    with ExitStack() as stack:
        for owner, name, part in PARTS:
            stack.enter_context(patch.object(owner, name, timed(getattr(owner, name), part)))
        yield spent


def print_parts(name: str, layers: int, repeats: int) -> None:
    """The table of one recipe, of the run that took least."""
    adapters, out = merge_8b.generated(merge_8b.WORK, layers, "bfloat16"), merge_8b.WORK / "parts"
    runs = []
    for _ in range(repeats):
        with timed_parts() as spent:
            cpu, *_ = merge_8b.measured(
                lambda: merge_adapters(adapters, out=out, **merge_8b.RUNS[name])
            )
        runs.append((cpu, spent))
        shutil.rmtree(out)
    cpu, spent = min(runs, key=lambda run: run[0])
    spent["the rest"] = cpu - sum(spent.values())
    scale = merge_8b.LAYERS / layers
    print(f"| {name} (from {layers} layers) | {cpu * scale:.1f} CPU s |\n|---|---|")
    for part, seconds in spent.most_common():
        print(f"| {part} | {seconds * scale:.1f} |")
    print(flush=True)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dense-layers", type=int, default=1, help="for ties, which is slow")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recipes", nargs="*", default=list(merge_8b.RUNS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as `koinize merge` does
    for name in given.recipes:
        print_parts(name, given.dense_layers if name == "ties" else given.layers, given.repeats)


if __name__ == "__main__":
    main()
