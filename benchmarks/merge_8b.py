"""Merging five adapters of Llama-3.1-8B's shapes (r = 64, all linear layers), file to file.

    python benchmarks/merge_8b.py --peers > benchmarks/results/merge_8b.md   # 224 modules
    python benchmarks/merge_8b.py --layers 1 --dense-layers 1                # a first look

Writes a Markdown table. CPU seconds are this process's own, user and system (how much of it
is the kernel's stands beside it), from opening the adapters to the renamed output; generating the
adapters is not in them. Times of fewer than 32 layers are scaled to 32, which is fair because all
layers have the same shapes, and marked so. Memory is the largest that is resident and not mapped
from a file, by /proc/self/statm every 10 ms: the interpreter with torch and what earlier merges
left in the heap included. Input and output are the CPU seconds of digesting, reading (with the
cast to float32) and writing, timed by the thread that does it. The output has the adapters' dtype.
The peers are faithful ports by formula: KnOTS' dense algorithm (a float64 SVD of the updates side
by side) and PEFT's `ties_svd`, its functions called as installed. The adapters are synthetic:
random factors with a decaying spectrum, in bfloat16 unless --dtype says otherwise. They are made
once and stay in --folder. With --trunk nothing but this is measured: each
recipe without and with a sixth adapter as the trunk, in turns, and the ratio of their CPU seconds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getpagesize, getrusage
from typing import Any
from unittest.mock import patch

import torch
from threadpoolctl import threadpool_limits

from koinize.adapter import Adapter, AdapterHeader, AdapterWriter, Factors, ModuleShape
from koinize.engine import merge_adapters
from koinize.machine import keep_memory
from koinize.merge.compose import merge_module
from koinize.merge.recipe import merge_settings

SHAPES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
LANGUAGES = ("de", "en", "fr", "ja", "zh")
TRUNK = "trunk"
LAYERS, RANK, DENSITY = 32, 64, 0.5
PEER_SHAPE = (1024, 4096)
WORK = Path(__file__).parent / "work" / "merge_8b"

RUNS: dict[str, dict[str, object]] = {
    "mean": {"recipe": "mean"},
    "core-ties": {"recipe": "core-ties", "density": DENSITY, "rank": RANK},
    "knots-ties": {"recipe": "knots-ties", "density": DENSITY, "rank": RANK},
    "ties": {"recipe": "ties", "density": DENSITY, "rank": RANK},
}
GOALS = {
    "mean": "5 CPU s",
    "core-ties": "20 CPU s",
    "knots-ties": "40 CPU s, 25 s wall, 1.5 GB",
    "ties": "300 CPU s, input and output 10 %",
}


def random_factors(outputs: int, inputs: int, seed: int) -> Factors:
    """An update of rank RANK whose singular values fall by two powers of ten."""
    random = torch.Generator().manual_seed(seed)
    decay = torch.logspace(0, -2, RANK)
    B = torch.randn(outputs, RANK, generator=random) * 0.01 * decay
    return Factors(B=B, A=torch.randn(RANK, inputs, generator=random) * 0.02)


def write_adapter(folder: Path, layers: int, seed: int, dtype: str) -> None:
    """One synthetic adapter on disk."""
    shapes = [
        ModuleShape(f"model.layers.{layer}.{name}", *shape, RANK)
        for layer in range(layers)
        for name, shape in SHAPES.items()
    ]
    like = AdapterHeader(folder, "synthetic/llama-3.1-8b", None, "CAUSAL_LM", False, None, {}, ())
    with AdapterWriter(folder, shapes, dtype=dtype) as writer:
        for number, shape in enumerate(sorted(shapes, key=lambda one: one.name)):
            factors = random_factors(shape.outputs, shape.inputs, 1000 * seed + number)
            writer.write(shape.name, factors)
        writer.finish([like])


def measured(work: Callable[[], object]) -> tuple[float, float, float]:
    """(CPU seconds of this process, wall seconds, CPU seconds of the kernel)."""
    before, wall = getrusage(RUSAGE_SELF), time.monotonic()
    work()
    after = getrusage(RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    return after.ru_utime - before.ru_utime + system, time.monotonic() - wall, system


def generated(
    folder: Path, layers: int, dtype: str, names: Sequence[str] = LANGUAGES
) -> dict[str, Path]:
    """The adapters of so many layers, made unless they are there already."""
    adapters = {one: folder / f"{layers}-{dtype}-{one}" for one in names}
    for seed, (language, path) in enumerate(adapters.items()):
        if not path.exists():
            print(f"generating {language}, {layers} layers, {dtype}", file=sys.stderr)
            write_adapter(path, layers, seed, dtype)
    return adapters


class PeakMemory:
    """The largest anonymous resident memory while it is entered, in bytes."""

    def __enter__(self) -> PeakMemory:
        self.peak = self._now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> int:
        _, resident, mapped, *_ = map(int, Path("/proc/self/statm").read_text().split())
        return (resident - mapped) * getpagesize()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def timed_io() -> Iterator[list[float]]:
    """Collects the CPU seconds of every digest, read and write of an adapter in the block."""
    spent: list[float] = []

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def measured_work(*given: object) -> object:
            start = time.thread_time()
            try:
                return work(*given)
            finally:
                spent.append(time.thread_time() - start)

        return measured_work

    with (
        patch.object(Adapter, "digest", timed(Adapter.digest)),
        patch.object(Adapter, "factors", timed(Adapter.factors)),
        patch.object(AdapterWriter, "write", timed(AdapterWriter.write)),
    ):
        yield spent


def file_to_file(name: str, layers: int, given: argparse.Namespace) -> str:
    """A row of the table: one merge from files to a file, best of the repeats by CPU seconds."""
    adapters = generated(given.folder, layers, given.dtype)
    out = given.folder / f"out-{name}"
    runs = []
    for _ in range(given.repeats):
        shutil.rmtree(out, ignore_errors=True)
        with PeakMemory() as memory, timed_io() as spent:
            cpu, wall, system = measured(
                lambda: merge_adapters(adapters, out=out, threads=given.threads, **RUNS[name])
            )
        runs.append((cpu, wall, system, sum(spent) / cpu, memory.peak))
    shutil.rmtree(out)
    cpu, _, system, share, _ = min(runs)
    wall, memory_bytes = min(run[1] for run in runs), max(run[4] for run in runs)
    scale = LAYERS / layers
    note = "" if layers == LAYERS else f" (scaled from {layers} layers)"
    return (
        f"| {name}{note} | {cpu * scale:.1f} ({system * scale:.1f}) | {wall * scale:.1f} "
        f"| {memory_bytes / 1e9:.2f} | {share:.0%} | {GOALS[name]} |"
    )


def with_trunk(name: str, layers: int, given: argparse.Namespace) -> str:
    """A row: the best of the repeats without a trunk and with one, which took turns."""
    adapters = generated(given.folder, layers, given.dtype, (*LANGUAGES, TRUNK))
    trunk, out = adapters.pop(TRUNK), given.folder / f"out-{name}"
    found: dict[Path | None, list[float]] = {None: [], trunk: []}
    for start in [None, trunk] * given.repeats:
        cpu, *_ = measured(
            lambda start=start: merge_adapters(
                adapters, out=out, trunk=start, threads=given.threads, **RUNS[name]
            )
        )
        shutil.rmtree(out)
        found[start].append(cpu * LAYERS / layers)
    without, beside = min(found[None]), min(found[trunk])
    note = "" if layers == LAYERS else f" (scaled from {layers} layers)"
    return f"| {name}{note} | {without:.1f} | {beside:.1f} | {beside / without:.2f} |"


def knots_dense(deltas: list[torch.Tensor], density: float) -> torch.Tensor:
    """KnOTS as its authors compute it: dense, in float64."""
    U, S, Vt = torch.linalg.svd(torch.cat(deltas, dim=1).double(), full_matrices=False)
    strong = S > 1e-5
    U, S, Vt = U[:, strong].float(), S[strong].float(), Vt[strong].float()
    stack = torch.stack([S[:, None] * V for V in Vt.split(deltas[0].shape[1], dim=1)])
    flat = stack.reshape(len(deltas), -1)
    cut = flat.abs().kthvalue(flat.shape[1] - int(flat.shape[1] * density), dim=1).values
    stack = stack * (stack.abs() >= cut[:, None, None])
    sign = stack.sum(0).sign()
    agree = torch.where(sign > 0, stack > 0, stack < 0)
    return U @ ((stack * agree).sum(0) / agree.sum(0).clamp(min=1))


def peft_ties_svd(deltas: list[torch.Tensor], density: float, rank: int) -> torch.Tensor:
    """What `add_weighted_adapter(combination_type="ties_svd")` computes for one module."""
    from peft.utils.merge_utils import ties

    merged = ties(deltas, torch.ones(len(deltas)), density)
    U, S, Vh = torch.linalg.svd(merged, full_matrices=True)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


def per_module() -> None:
    """One module of 1024 x 4096: ours against the peers, in memory, in one run."""
    updates = {one: random_factors(*PEER_SHAPE, seed) for seed, one in enumerate(LANGUAGES)}
    deltas = [update.B @ update.A for update in updates.values()]
    peers: dict[str, tuple[str, int, Callable[[], object]]] = {
        "knots-ties": ("KnOTS, dense", 60, lambda: knots_dense(deltas, DENSITY)),
        "ties": ("PEFT `ties_svd`", 15, lambda: peft_ties_svd(deltas, DENSITY, RANK)),
    }
    print("\n| one module, 1024 x 4096 | koinize CPU s | peer | peer CPU s | times | goal |")
    print("|---|---|---|---|---|---|")
    for name, (peer, goal, work) in peers.items():
        settings = merge_settings(**RUNS[name])
        merge_module("m", updates, settings)
        ours = min(measured(lambda s=settings: merge_module("m", updates, s))[0] for _ in range(5))
        theirs = measured(work)[0]
        print(
            f"| {name} | {ours:.3f} | {peer} | {theirs:.2f} | {theirs / ours:.0f} | {goal} |",
            flush=True,
        )


def print_floors() -> None:
    """What the products alone cost at this processor's rates, measured now."""
    sizes = SHAPES.values()
    entries = LAYERS * sum(outputs * inputs for outputs, inputs in sizes)
    sides = LAYERS * sum(outputs + inputs for outputs, inputs in sizes)
    stacked = RANK * len(LANGUAGES)
    single, double = (product_rate(kind) for kind in (torch.float32, torch.float64))
    both = 2.0 * entries * RANK * len(LANGUAGES) * 2
    projection = 2.0 * entries * RANK * 4  # two blocks, multiplied from both sides
    basis = float(sides) * stacked**2
    print(f"\nMatrix products: {single / 1e9:.0f} (float32), {double / 1e9:.0f} (float64) GFLOP/s.")
    print(f"Floor of ties: the updates, twice, {both / single:.0f} s;", end=" ")
    print(f"two Krylov blocks {projection / single:.0f} s.")
    print(f"Floor of the Gram matrices of core-ties: {basis / double:.0f} s.")
    print("What is above the floors: thresholds, election, decompositions, memory.")


def product_rate(kind: torch.dtype) -> float:
    """Operations per CPU second of a product of 1024 x 1024 matrices."""
    square = torch.ones(1024, 1024, dtype=kind)
    return 2.0 * 1024**3 / min(measured(lambda: square @ square)[0] for _ in range(5))


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--dense-layers", type=int, default=2, help="for ties, which is slow")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", help="of the adapters read")
    parser.add_argument("--folder", type=Path, default=WORK, help="of the generated adapters")
    parser.add_argument("--recipes", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--trunk", action="store_true", help="compare with merges from a trunk")
    parser.add_argument("--peers", action="store_true", help="compare one module with the peers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")
    keep_memory()  # as `koinize merge` does
    print(f"Five adapters of Llama-3.1-8B's shapes, r = {RANK}, {given.dtype}, density {DENSITY},")
    print(f"224 modules, {given.threads} threads; `python benchmarks/merge_8b.py`.\n")
    row = with_trunk if given.trunk else file_to_file
    head = ["recipe", "CPU s (kernel)", "wall s", "peak GB", "input and output", "goal"]
    if given.trunk:
        head = ["recipe", "CPU s", "CPU s with a trunk", "ratio"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for name in given.recipes:
        layers = min(given.layers, given.dense_layers) if name == "ties" else given.layers
        print(row(name, layers, given), flush=True)
    if given.trunk:
        return
    if given.peers:
        per_module()
    print_floors()


if __name__ == "__main__":
    main()
