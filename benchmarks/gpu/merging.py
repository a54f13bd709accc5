"""The merge engine: parity with the CPU on one layer, time for all modules, and where it goes."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file
from threadpoolctl import threadpool_limits

from benchmarks.gpu.bases import free_memory, peak_gigabytes, synchronize
from benchmarks.gpu.report import Part
from benchmarks.gpu.scale import LANGUAGES, Scale, work_folder
from koinize.adapter import Adapter, AdapterHeader, AdapterWriter, Factors, ModuleShape
from koinize.engine import MergeReport, merge_adapters
from koinize.machine import keep_memory
from koinize.merge import approximation, linalg

DENSITY = 0.2
# A dense merge holds several whole updates per module in flight.
RECIPES: dict[str, tuple[dict[str, object], int]] = {
    "knots-ties": ({"density": DENSITY}, 16),
    "core-ties": ({"density": DENSITY}, 16),
    "mean": ({}, 16),
    "ties": ({"density": DENSITY}, 8),
}
THREADS = (4, 8, 16)
"""Modules in flight on the GPU."""
TIMED = ((Adapter, "digest", "digests of the inputs"), (Adapter, "factors", "reading"),
         (AdapterWriter, "write", "writing"), (np.linalg, "eigh", "eigenproblems"),
         (torch.linalg, "eigh", "eigenproblems"))  # fmt: skip


def run(part: Part, scale: Scale) -> None:
    """Generate, compare, measure."""
    keep_memory()  # as `koinize merge` does
    with work_folder(scale.needs) as folder:
        started = time.monotonic()
        few, all_layers = (generated(folder, scale, layers) for layers in (1, scale.layers))
        part.row("generating the adapters", time.monotonic() - started, "s", str(folder.parent))
        for name in RECIPES:
            part.attempt(f"parity of {name}", 5, partial(parity, part, scale, few, name))
        shown = ("knots-ties", "mean", "core-ties")  # what takes longest comes last
        for threads in THREADS:
            for name in shown:
                one = partial(whole, part, scale, all_layers, name, scale.device, threads)
                part.attempt(f"{name}, GPU", 3, one)
        part.attempt("where it goes", 4, partial(breakdown, part, scale, all_layers, THREADS[0]))
        for name in shown:
            one = partial(whole, part, scale, all_layers, name, "cpu", scale.cores)
            part.attempt(f"{name}, CPU", 5, one)
        part.attempt("where it goes", 4, partial(breakdown, part, scale, all_layers, scale.cores))
        part.attempt("ties, GPU", 3, partial(whole, part, scale, all_layers, "ties"))
        part.attempt("eigenproblems", 4, partial(eigenproblems, part, scale))
        part.attempt("the solver", 6, partial(on_the_gpu, part, scale, all_layers))
    free_memory(scale.device)


def generated(folder: Path, scale: Scale, layers: int) -> dict[str, Path]:
    """Five adapters on disk: random factors with a decaying spectrum, drawn on the device."""
    shapes = [
        ModuleShape(f"model.layers.{layer}.{name}", *shape, scale.r)
        for layer in range(layers)
        for name, shape in scale.shapes.items()
    ]
    shapes.sort(key=lambda shape: shape.name)

    def write(seed: int) -> Path:
        out = folder / f"{layers}-{LANGUAGES[seed]}"
        random = torch.Generator(scale.device).manual_seed(seed)
        decay = torch.logspace(0, -2, scale.r, device=scale.device)
        draw = partial(torch.randn, generator=random, device=scale.device)
        like = AdapterHeader(out, "synthetic/llama", None, "CAUSAL_LM", False, None, {}, ())
        with AdapterWriter(out, shapes, dtype="bfloat16") as writer:
            for shape in shapes:
                B = draw(shape.outputs, scale.r) * decay * 0.01
                A = draw(scale.r, shape.inputs) * 0.02
                # Small for the way to the host; the writer casts in any case.
                writer.write(shape.name, Factors(B=B.bfloat16().cpu(), A=A.bfloat16().cpu()))
            writer.finish([like])
        return out

    with ThreadPoolExecutor(len(LANGUAGES)) as pool:
        return dict(zip(LANGUAGES, pool.map(write, range(len(LANGUAGES))), strict=True))


def merge(
    scale: Scale, adapters: dict[str, Path], name: str, device: str, **more: object
) -> tuple[MergeReport, float]:
    """A merge into `out-DEVICE` beside the adapters, and its wall seconds."""
    out = next(iter(adapters.values())).parent / f"out-{device}"
    shutil.rmtree(out, ignore_errors=True)
    options, threads = RECIPES[name]
    options = {"recipe": name, "rank": scale.r, "threads": min(threads, scale.cores), **options}
    started = time.monotonic()
    report = merge_adapters(adapters, out=out, device=device, **{**options, **more})
    return report, time.monotonic() - started


def parity(part: Part, scale: Scale, few: dict[str, Path], name: str) -> None:
    """The largest relative Frobenius distance of a module's update, over one layer."""
    reports = []
    for device in (scale.device, "cpu"):
        report, seconds = merge(scale, few, name, device, dtype="float32")
        reports.append((load_file(report.out / "adapter_model.safetensors"), report, seconds))
    (there, far, _), (here, near, on_cpu) = reports
    distances = [
        float((one - other).norm() / other.norm())
        for one, other in zip(updates(there, scale), updates(here, scale), strict=True)
    ]
    how = f"{len(distances)} modules; the CPU took {on_cpu:.2f} s"
    part.row(f"{name}: GPU against CPU", max(distances), "rel. Frobenius", how)
    lost = abs(far.error - near.error)
    part.row(f"{name}: error of the rank, GPU less CPU", lost, "of the norm", f"{near.error:.3f}")


def updates(tensors: dict[str, torch.Tensor], scale: Scale) -> Iterator[torch.Tensor]:
    """B A of every module, in float64."""
    for key in sorted(key for key in tensors if ".lora_A." in key):
        A, B = tensors[key], tensors[key.replace(".lora_A.", ".lora_B.")]
        yield B.to(scale.device).double() @ A.to(scale.device).double()


def whole(
    part: Part,
    scale: Scale,
    adapters: dict[str, Path],
    name: str,
    device: str | None = None,
    threads: int = 8,
) -> None:
    """All modules, file to file."""
    device, threads = device or scale.device, min(threads, scale.cores)
    free_memory(scale.device)
    report, seconds = merge(scale, adapters, name, device, threads=threads)
    memory = f", at most {peak_gigabytes(device):.1f} GB on the GPU" if device == "cuda" else ""
    goal = " (goal: 3 s)" if name == "knots-ties" and device == scale.device else ""
    how = f"{len(report.modules)} modules, file to file{memory}{goal}"
    where = "GPU" if device == scale.device else "CPU"
    part.row(f"{name}, {where}, {threads} threads", seconds, "s", how)


def on_the_gpu(part: Part, scale: Scale, adapters: dict[str, Path]) -> None:
    """knots-ties with its eigenproblems on the GPU, one by one as modules come."""
    with ExitStack() as patches:
        for module in (linalg, approximation):
            if hasattr(module, "eigh"):
                patches.enter_context(patch.object(module, "eigh", torch.linalg.eigh))
        _, seconds = merge(scale, adapters, "knots-ties", scale.device)
    part.row("knots-ties, GPU, eigenproblems on it one by one", seconds, "s", "decision 009")


def breakdown(part: Part, scale: Scale, adapters: dict[str, Path], threads: int) -> None:
    """knots-ties with every part timed by the thread that does it."""
    with seconds_by_part() as spent:
        _, seconds = merge(scale, adapters, "knots-ties", scale.device, threads=threads)
    parts = ", ".join(f"{name} {one:.2f} s" for name, one in spent.most_common())
    how = f"{parts} (summed over threads; writing is one thread's)"
    part.row(f"knots-ties, {threads} threads, timed by part", seconds, "s", how)
    files = spent["digests of the inputs"] + spent["reading"] + spent["writing"]
    share = 100 * files / sum(spent.values())
    part.row("input and output among the timed parts", share, "%", f"{threads} threads")


@contextmanager
def seconds_by_part() -> Iterator[Counter[str]]:
    """Collects wall seconds of the engine's parts; moving includes to wait for the GPU."""
    spent: list[tuple[str, float]] = []

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: object, **more: object) -> object:
            start = time.monotonic()
            result = work(*given, **more)
            if name != "moving" or result.device != getattr(given[0], "device", None):
                spent.append((name, time.monotonic() - start))
            return result

        return measured

    moves = ((torch.Tensor, "to", "moving"), (torch.Tensor, "cpu", "moving"))
    total: Counter[str] = Counter()
    with ExitStack() as patches:
        for owner, attribute, name in (*TIMED, *moves):
            work = timed(name, getattr(owner, attribute))
            patches.enter_context(patch.object(owner, attribute, work))
        yield total
    for name, seconds in spent:
        total[name] += seconds


def eigenproblems(part: Part, scale: Scale) -> None:
    """The larger one of each module of knots-ties, on all cores and on the GPU, by itself."""
    count, size = scale.layers * len(scale.shapes), len(LANGUAGES) * scale.r
    tall = torch.randn(count, 2 * size, size, dtype=torch.float64, device=scale.device)
    grams = tall.mT @ tall
    here = [one.numpy() for one in grams.cpu()]
    # As in the engine: one core to each.
    with ThreadPoolExecutor(scale.cores) as pool, threadpool_limits(1, user_api="blas"):
        seconds = clock(lambda: list(pool.map(np.linalg.eigh, here)), scale)
    name = f"{count} eigenproblems of {size}, {scale.cores} cores"
    part.row(name, seconds, "s", "numpy, float64")
    ways: dict[str, Callable[[], object]] = {
        "the matrices to the GPU and back": lambda: grams.cpu().to(scale.device),
        "on the GPU, one call": lambda: torch.linalg.eigh(grams),
        "on the GPU, float32, one call": lambda: torch.linalg.eigh(grams.float()),
        "on the GPU, one by one": lambda: [torch.linalg.eigh(one) for one in grams],
    }
    torch.linalg.eigh(grams[:2])  # makes the solver's handles
    for name, work in ways.items():
        if part.left() > 3:
            part.row(f"the same: {name}", clock(work, scale), "s", "decision 009")


def clock(work: Callable[[], object], scale: Scale) -> float:
    """Wall seconds, the device's work included."""
    synchronize(scale.device)
    started = time.monotonic()
    work()
    synchronize(scale.device)
    return time.monotonic() - started
