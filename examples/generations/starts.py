"""The mean of several adapters as one that a training can go on from."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bench import read_factors
from safetensors.torch import load_file, save_file

from koinize.adapter import read_header
from koinize.engine import merge_adapters

FRESH = 1 / math.sqrt(3)
"""The norm of a row of A at the start of a training: uniform in +-1/sqrt(inputs)."""
TINY = 1e-30
"""In place of 0, where a mean is nothing at all."""


def write_mean(adapters: Mapping[str, Path], out: Path) -> float:
    """Writes the mean of adapters of one shape as an adapter of that shape; what the cut lost.

    The engine's mean of the products B A, cut to the adapters' rank: exact up to the relative
    Frobenius error that is returned. It comes with orthogonal rows of A, which get the norm that a
    training begins with; B takes the rest, and their scale. Directions that the mean does not need
    are those of the first adapter, with zeros in B.
    """
    first = read_header(next(iter(adapters.values())))
    rank = max(module.rank for module in first.modules.values())
    with TemporaryDirectory() as folder:
        merged = Path(folder) / "mean"
        report = merge_adapters(adapters, out=merged, recipe="mean", rank=rank, threads=4)
        means = read_factors(merged, torch.device("cpu"))
    tensors = load_file(first.weights)
    for name, module in first.modules.items():
        own_A, own_B = (f"base_model.model.{name}.lora_{factor}.weight" for factor in "AB")
        A, B = means[name]
        norms = A.norm(dim=1, keepdim=True).clamp_min(TINY) / FRESH
        tensors[own_B] = torch.zeros_like(tensors[own_B])
        tensors[own_A][: len(A)] = A / norms
        tensors[own_B][:, : len(A)] = B * norms.T / module.scale
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copyfile(first.folder / "adapter_config.json", partial / "adapter_config.json")
    save_file(tensors, partial / first.weights.name, metadata={"format": "pt"})
    partial.rename(out)
    return report.error
