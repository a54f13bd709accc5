"""Merging five adapters of Llama-3.1-8B's shapes (r = 64, all linear layers), file to file.

    python benchmarks/merge_8b.py --layers 32                 # the whole model, 224 modules
    python benchmarks/merge_8b.py --layers 1 --peers          # one layer, and the peers per module

CPU seconds are this process's own. With fewer than 32 layers the times are also given for 32, which
is fair because all layers have the same shapes. The peers are faithful ports by formula: KnOTS'
dense algorithm (a float64 SVD of the updates side by side) and PEFT's `ties_svd`, its functions
called as installed. The adapters are synthetic: random factors with a decaying spectrum.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch

from koinize.adapter import AdapterHeader, AdapterWriter, Factors, ModuleShape
from koinize.engine import merge_adapters
from koinize.merge.compose import merge_module
from koinize.recipe import merge_settings

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
LAYERS, RANK, DENSITY = 32, 64, 0.5
PEER_SHAPE = (1024, 4096)
WORK = Path(__file__).parent / "work" / "merge_8b"

RUNS: dict[str, dict[str, object]] = {
    "mean": {"recipe": "mean"},
    "core-ties": {"recipe": "core-ties", "density": DENSITY, "rank": RANK},
    "knots-ties": {"recipe": "knots-ties", "density": DENSITY, "rank": RANK},
    "ties": {"recipe": "ties", "density": DENSITY, "rank": RANK},
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


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """(CPU seconds of this process, wall seconds)."""
    cpu, wall = time.process_time(), time.monotonic()
    work()
    return time.process_time() - cpu, time.monotonic() - wall


def file_to_file(layers: int, names: list[str], threads: int, dtype: str) -> None:
    """Every named merge, from files to a file."""
    shutil.rmtree(WORK, ignore_errors=True)
    adapters = {one: WORK / one for one in LANGUAGES}
    for seed, folder in enumerate(adapters.values()):
        write_adapter(folder, layers, seed, dtype)
    for name in names:
        out = WORK / f"out-{name}"
        cpu, wall = measured(
            lambda out=out, name=name: merge_adapters(
                adapters, out=out, threads=threads, **RUNS[name]
            )
        )
        shutil.rmtree(out)
        whole = LAYERS / layers
        row = {
            "recipe": name,
            "layers": layers,
            "threads": threads,
            "cpu_s": round(cpu, 2),
            "wall_s": round(wall, 2),
            "cpu_s_for_32_layers": round(cpu * whole, 1),
            "wall_s_for_32_layers": round(wall * whole, 1),
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        print(json.dumps(row))
    shutil.rmtree(WORK)


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
    for name, peer in {
        "knots-ties": lambda: knots_dense(deltas, DENSITY),
        "ties": lambda: peft_ties_svd(deltas, DENSITY, RANK),
    }.items():
        settings = merge_settings(**RUNS[name])
        merge_module("m", updates, settings)
        ours = min(measured(lambda s=settings: merge_module("m", updates, s))[0] for _ in range(5))
        theirs = measured(peer)[0]
        row = {"module": list(PEER_SHAPE), "recipe": name, "ours_cpu_s": round(ours, 3)}
        print(json.dumps({**row, "peer_cpu_s": round(theirs, 2), "times": round(theirs / ours)}))


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16", help="of the adapters read")
    parser.add_argument("--recipes", nargs="*", default=[name for name in RUNS if name != "ties"])
    parser.add_argument("--peers", action="store_true", help="compare one module with the peers")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    if given.recipes:
        file_to_file(given.layers, given.recipes, given.threads, given.dtype)
    if given.peers:
        per_module()


if __name__ == "__main__":
    main()
