"""How adapters of one base stand to one another, from their dense updates in float64."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

SMALL = 1e-6  # of the largest singular value: nothing
ROWS = 64  # on which signs are counted
Updates = dict[str, np.ndarray]


def interference(folders: Mapping[str, Path], trunk: Path | None = None) -> dict[str, Any]:
    """Of the adapters in these folders, by language; with a trunk, of their differences from it."""
    languages = sorted(folders)
    start = updates(trunk) if trunk else {}
    each = [
        {name: one - start.get(name, 0) for name, one in updates(folders[language]).items()}
        for language in languages
    ]
    each = [{name: one for name, one in some.items() if one.any()} for some in each]
    pairs = [[(one, other) for other in each] for one in each]
    ranks = sorted({rank(one) for some in each for one in some.values()} | {1})
    steps = [*(2**k for k in range((ranks[-1] - 1).bit_length())), ranks[-1]]
    norms = [np.sqrt(product(one, one)) for one in each]
    config = json.loads((folders[languages[0]] / "adapter_config.json").read_text())

    def matrix(of: Any) -> list[list[float]]:
        return [[float(of(*pair)) for pair in row] for row in pairs]

    return {
        "languages": languages,
        "base_model": config["base_model_name_or_path"],
        "parameters": [parameters(folders[one]) for one in languages],
        "modules": [len(one) for one in each],
        "norms": norms,
        "cosine": matrix(lambda a, b: product(a, b) / np.sqrt(product(a, a) * product(b, b))),
        "column_overlap": matrix(lambda a, b: overlap(angles(a, b, 0))),
        "row_overlap": matrix(lambda a, b: overlap(angles(a, b, 1))),
        "column_angle": matrix(lambda a, b: smallest(angles(a, b, 0))),
        "row_angle": matrix(lambda a, b: smallest(angles(a, b, 1))),
        "sign_conflict": matrix(opposed),
        "ranks": [[enough(one, share) for share in (0.9, 0.99)] for one in each],
        "energy_ranks": steps,
        "energy": [[kept(one, step) for step in steps] for one in each],
    }


def updates(folder: Path) -> Updates:
    """Every module's s B A."""
    config = json.loads((folder / "adapter_config.json").read_text())
    found, tensors = {}, load_file(folder / "adapter_model.safetensors")
    for name, A in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            B = tensors[name.replace(".lora_A.", ".lora_B.")].astype(np.float64)
            found[module] = scale(config, module, len(A)) * B @ A.astype(np.float64)
    return found


def scale(config: Mapping[str, Any], module: str, r: int) -> float:
    """alpha / r, or alpha / sqrt(r) with rslora; a module may have an alpha of its own."""
    own = [
        value
        for pattern, value in (config.get("alpha_pattern") or {}).items()
        if module == pattern or module.endswith(f".{pattern}")
    ]
    alpha = own[0] if own else config["lora_alpha"]
    return float(alpha / np.sqrt(r) if config.get("use_rslora") else alpha / r)


def parameters(folder: Path) -> int:
    return sum(one.size for one in load_file(folder / "adapter_model.safetensors").values())


def product(one: Updates, other: Updates) -> float:
    return float(sum((one[name] * other[name]).sum() for name in one.keys() & other.keys()))


def spectrum(matrix: np.ndarray) -> np.ndarray:
    values = np.linalg.svd(matrix, compute_uv=False)
    return values[values > SMALL * values[0]]


def rank(matrix: np.ndarray) -> int:
    return len(spectrum(matrix))


def space(matrix: np.ndarray, side: int) -> np.ndarray:
    """An orthonormal basis of its columns (0) or rows (1)."""
    U, S, Vt = np.linalg.svd(matrix, full_matrices=False)
    there = SMALL * S[0] < S
    return U[:, there] if side == 0 else Vt[there].T


def angles(one: Updates, other: Updates, side: int) -> list[np.ndarray]:
    """The cosines of the principal angles, by module, the largest first."""
    return [
        np.linalg.svd(space(one[name], side).T @ space(other[name], side), compute_uv=False)
        for name in sorted(one.keys() & other.keys())
    ]


def overlap(cosines: Iterable[np.ndarray]) -> float:
    each = [float((one**2).mean()) for one in cosines]
    return sum(each) / len(each) if each else 0.0


def smallest(cosines: Iterable[np.ndarray]) -> float:
    each = [float(np.degrees(np.arccos(min(1.0, one[0])))) for one in cosines]
    return sum(each) / len(each) if each else 0.0


def opposed(one: Updates, other: Updates) -> float:
    """Of the entries that both change, those with opposed signs; for modules of few outputs."""
    signs = [
        np.sign(one[name]) * np.sign(other[name]) for name in sorted(one.keys() & other.keys())
    ]
    assert all(len(each) <= ROWS for each in signs)
    both = sum(int((each != 0).sum()) for each in signs)
    return sum(int((each < 0).sum()) for each in signs) / both if both else 0.0


def enough(updates: Updates, share: float) -> float:
    """The mean over modules of the rank that keeps this share of the energy."""
    each = [np.cumsum(spectrum(one) ** 2) for one in updates.values()]
    ranks = [1 + int((sums < share * sums[-1]).sum()) for sums in each]
    return sum(ranks) / len(ranks) if ranks else 0.0


def kept(updates: Updates, step: int) -> float:
    """The share of the energy of all modules that this rank of each keeps."""
    each = [spectrum(one) ** 2 for one in updates.values()]
    whole = sum(float(one.sum()) for one in each)
    return sum(float(one[:step].sum()) for one in each) / whole if whole else 0.0
