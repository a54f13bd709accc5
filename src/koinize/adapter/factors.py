"""The tensors of an adapter: the factors of one module at a time, from a mapped file."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from koinize.adapter.header import AdapterHeader, read_header
from koinize.adapter.tensorfile import ITEM_BYTES, TORCH_NAMES, TensorSpec
from koinize.errors import InputError

if TYPE_CHECKING:
    import torch

# Entries of an update. Trained ones are below 1; from here on squares and their sums leave float32.
LARGEST_ENTRY = 1e15
DAMAGED = "its training diverged or the file is damaged"
PIECE_BYTES = 1 << 22  # of a whole module that is compared or copied; a multiple of every item


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank update B A: B is outputs x rank, A is rank x inputs, both float32.

    `scale` is the alpha / r that is folded into B already, for who needs the factors as stored.
    """

    B: torch.Tensor
    A: torch.Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """The number of columns of B, which is the number of rows of A."""
        return self.B.shape[1]

    def to(self, device: torch.device | str) -> Factors:
        """The same factors on another device."""
        return Factors(B=self.B.to(device), A=self.A.to(device), scale=self.scale)


def magnitude(tensor: torch.Tensor) -> float:
    """The largest magnitude; not finite if an entry is not."""
    import torch

    low, high = torch.aminmax(tensor)
    return max(-float(low), float(high))


class Adapter:
    """An open adapter. Use it as a context manager; reading is safe from several threads."""

    def __init__(self, header: AdapterHeader) -> None:
        self.header = header
        with header.weights.open("rb") as file:
            # A private writable mapping, because torch warns about read-only buffers.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def factors(self, module: str) -> Factors:
        """The factors of one module in float32, alpha folded in.

        Raises InputError on NaN, infinity, and values whose product nobody can have trained.
        """
        entry = self.header.modules[module]
        A, largest_a = self._tensor(f"{module}.lora_A", entry.A)
        B, largest_b = self._tensor(f"{module}.lora_B", entry.B)
        largest = entry.scale * entry.rank * largest_a * largest_b
        if largest > LARGEST_ENTRY:
            raise InputError(
                f"the update of module '{module}' may have entries of {largest:.0e}",
                where=str(self.header.weights),
                expected=f"{LARGEST_ENTRY:.0e} at most",
                remedy=DAMAGED,
            )
        return Factors(B=B.mul_(entry.scale), A=A, scale=entry.scale)

    def saved(self, name: str) -> Iterator[memoryview]:
        """The bytes of one tensor of a whole module, in pieces. Raises InputError on NaN."""
        import torch

        spec = self.header.saved[name]
        dtype = getattr(torch, TORCH_NAMES[spec.dtype])
        for start in range(spec.start, spec.end, PIECE_BYTES):
            piece = bytearray(self._map[start : min(start + PIECE_BYTES, spec.end)])
            if not bool(torch.isfinite(torch.frombuffer(piece, dtype=dtype)).all()):
                raise self._not_finite(name)
            yield memoryview(piece)

    def _not_finite(self, name: str) -> InputError:
        return InputError(
            f"tensor '{name}' holds NaN or infinity",
            where=str(self.header.weights),
            remedy=DAMAGED,
        )

    def _tensor(self, name: str, spec: TensorSpec) -> tuple[torch.Tensor, float]:
        """A tensor in float32, and its largest magnitude."""
        import torch

        dtype = getattr(torch, TORCH_NAMES[spec.dtype])
        if spec.start % ITEM_BYTES[spec.dtype]:  # legal in the format, not for a processor
            raw = torch.frombuffer(bytearray(self._map[spec.start : spec.end]), dtype=dtype)
        else:
            count = (spec.end - spec.start) // ITEM_BYTES[spec.dtype]
            raw = torch.frombuffer(self._map, dtype=dtype, count=count, offset=spec.start)
        # A copy in any case: sums must not depend on where the file happens to be mapped.
        tensor = raw.reshape(spec.shape).to(torch.float32, copy=True)
        largest = magnitude(tensor)
        if not math.isfinite(largest):
            raise self._not_finite(name)
        return tensor, largest

    def __enter__(self) -> Adapter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Unmapped with its last view, and not before: a tensor holds the map, but does not lock it.
        del self._map


def open_adapter(folder: Path | str | AdapterHeader) -> Adapter:
    """Open an adapter, from its folder or from a header that was read before."""
    return Adapter(folder if isinstance(folder, AdapterHeader) else read_header(folder))
