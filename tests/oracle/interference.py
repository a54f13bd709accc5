"""How adapters of one base stand to one another, in float64, one module after the other.

An update is held as U S V', from QR of its factors and an SVD of what is between them; only the
sampled rows on which signs are counted are multiplied out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

SMALL = 1e-6  # of the largest singular value: nothing
ROUNDING = 1e-12  # of a trunk's largest one: no difference from it
ROWS = 64  # on which signs are counted


@dataclass(frozen=True)
class Update:
    """B A: outputs x r and r x inputs, with the scale in B."""

    B: np.ndarray
    A: np.ndarray

    def minus(self, other: Update) -> Update | None:
        """With as many columns as the difference has directions; None for no difference."""
        B, A = np.hstack([self.B, -other.B]), np.vstack([self.A, other.A])
        U, S, V = Update(B, A).svd
        if S[0] <= ROUNDING * other.svd[1][0]:
            return None
        there = SMALL * S[0] < S
        return Update(U[:, there] * S[there], V[:, there].T)

    @cached_property
    def svd(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """U, S and V: no matrix of outputs x inputs is made."""
        (Q, left), (P, right) = np.linalg.qr(self.B), np.linalg.qr(self.A.T)
        U, S, Vt = np.linalg.svd(left @ right.T, full_matrices=False)
        return Q @ U, S, P @ Vt.T

    @cached_property
    def spaces(self) -> tuple[np.ndarray, np.ndarray]:
        """Orthonormal bases of what it writes to, its columns, and of what it reads from."""
        return basis(self.B), basis(self.A.T)

    @cached_property
    def signs(self) -> np.ndarray:
        """On rows that are spread by the golden section, each once."""
        outputs, golden = len(self.B), (sqrt(5) - 1) / 2
        some = {int(number * golden % 1 * outputs) for number in range(ROWS)}
        sampled = sorted(some) if outputs > ROWS else list(range(outputs))
        return np.sign(self.B[sampled] @ self.A)


def basis(matrix: np.ndarray) -> np.ndarray:
    U, S, _ = np.linalg.svd(matrix, full_matrices=False)
    return U[:, SMALL * S[0] < S]


def interference(folders: Mapping[str, Path], trunk: Path | None = None) -> dict[str, Any]:
    """Of the adapters in these folders, by language; with a trunk, of their differences from it."""
    languages = sorted(folders)
    with ExitStack() as stack:
        adapters = [Adapter(folders[one], stack) for one in languages]
        start = Adapter(trunk, stack) if trunk else None
        found = Sums(len(languages))
        for module in sorted({name for one in adapters for name in one.modules}):
            found.add([changed(one.update(module), start, module) for one in adapters])
        named = {
            "languages": languages,
            "base_model": adapters[0].config["base_model_name_or_path"],
            "parameters": [one.parameters for one in adapters],
        }
    return {**named, **found.results()}


def changed(one: Update | None, start: Adapter | None, module: str) -> Update | None:
    begun = start.update(module) if start else None
    return one.minus(begun) if one and begun else one


class Adapter:
    """A PEFT folder, of which one module at a time is in memory."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.config = json.loads((folder / "adapter_config.json").read_text())
        path = folder / "adapter_model.safetensors"
        self._file: Any = stack.enter_context(safe_open(path, framework="numpy"))
        keys = [one for one in self._file.keys() if one.endswith(".lora_A.weight")]  # noqa: SIM118
        self.modules = {
            one.removesuffix(".lora_A.weight").removeprefix("base_model.model."): one
            for one in keys
        }

    @property
    def parameters(self) -> int:
        shapes = [self._file.get_slice(one).get_shape() for one in self._file.keys()]  # noqa: SIM118
        return sum(rows * columns for rows, columns in shapes)

    def update(self, module: str) -> Update | None:
        if module not in self.modules:
            return None
        key = self.modules[module]
        A = self._file.get_tensor(key).astype(np.float64)
        B = self._file.get_tensor(key.replace(".lora_A.", ".lora_B.")).astype(np.float64)
        return Update(scale(self.config, module, len(A)) * B, A)


def scale(config: Mapping[str, Any], module: str, r: int) -> float:
    """alpha / r, or alpha / sqrt(r) with rslora; a module may have an alpha of its own."""
    own = [
        value
        for pattern, value in (config.get("alpha_pattern") or {}).items()
        if module == pattern or module.endswith(f".{pattern}")
    ]
    alpha = own[0] if own else config["lora_alpha"]
    return float(alpha / np.sqrt(r) if config.get("use_rslora") else alpha / r)


class Sums:
    """What is summed over the modules, and what of each one is averaged in the end."""

    def __init__(self, count: int) -> None:
        self.products = np.zeros((count, count))
        self.opposed, self.both = np.zeros((count, count)), np.zeros((count, count))
        self.cosines = [[[[], []] for _ in range(count)] for _ in range(count)]
        self.energies: list[list[np.ndarray]] = [[] for _ in range(count)]

    def add(self, updates: Sequence[Update | None]) -> None:
        """One module's, in the order of the languages."""
        there = [place for place, one in enumerate(updates) if one]
        for one in there:
            self.energies[one].append(updates[one].svd[1] ** 2)
        for one in there:
            for other in there:
                self._add_pair(one, other, updates[one], updates[other])

    def _add_pair(self, one: int, other: int, ours: Update, theirs: Update) -> None:
        (U, S, V), (W, T, X) = ours.svd, theirs.svd
        self.products[one, other] += S @ ((U.T @ W) * (V.T @ X)) @ T
        signs = ours.signs * theirs.signs
        stands_for = len(ours.B) / len(signs)  # so many rows of the module
        self.opposed[one, other] += stands_for * (signs < 0).sum()
        self.both[one, other] += stands_for * (signs != 0).sum()
        for side in (0, 1):
            between = ours.spaces[side].T @ theirs.spaces[side]
            if between.size:
                cosines = np.linalg.svd(between, compute_uv=False)
                self.cosines[one][other][side].append(cosines)

    def results(self) -> dict[str, Any]:
        norms = np.sqrt(self.products.diagonal())
        longest = max((len(one) for some in self.energies for one in some), default=1)
        steps = [*(2**k for k in range((longest - 1).bit_length())), longest]
        return {
            "modules": [len(some) for some in self.energies],
            "norms": norms.tolist(),
            "cosine": ratio(self.products, np.outer(norms, norms)),
            "column_overlap": self._by_pair(overlap, 0),
            "row_overlap": self._by_pair(overlap, 1),
            "column_angle": self._by_pair(smallest, 0),
            "row_angle": self._by_pair(smallest, 1),
            "sign_conflict": ratio(self.opposed, self.both),
            "ranks": [[enough(some, share) for share in (0.9, 0.99)] for some in self.energies],
            "energy_ranks": steps,
            "energy": [[kept(some, step) for step in steps] for some in self.energies],
        }

    def _by_pair(self, of: Any, side: int) -> list[list[float]]:
        return [[of(pair[side]) for pair in row] for row in self.cosines]


def ratio(part: np.ndarray, whole: np.ndarray) -> Any:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0).tolist()


def overlap(cosines: Iterable[np.ndarray]) -> float:
    """The mean over modules of the mean squared cosine of the principal angles."""
    each = [float((one**2).mean()) for one in cosines]
    return sum(each) / len(each) if each else 0.0


def smallest(cosines: Iterable[np.ndarray]) -> float:
    """The mean over modules of the smallest angle, in degrees."""
    each = [float(np.degrees(np.arccos(min(1.0, one[0])))) for one in cosines]
    return sum(each) / len(each) if each else 0.0


def enough(energies: Sequence[np.ndarray], share: float) -> float:
    """The mean over modules of the rank that keeps this share of the energy."""
    each = [1 + int((np.cumsum(one)[:-1] < share * one.sum()).sum()) for one in energies]
    return sum(each) / len(each) if each else 0.0


def kept(energies: Sequence[np.ndarray], step: int) -> float:
    """The share of the energy of all modules that this rank of each keeps."""
    whole = sum(float(one.sum()) for one in energies)
    return sum(float(one[:step].sum()) for one in energies) / whole if whole else 0.0
