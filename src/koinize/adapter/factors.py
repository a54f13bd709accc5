"""The tensors of an adapter: the factors of one module at a time, read from an open file.

It is read and not mapped: of a mapped file that somebody shortens, a touch ends the process.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from koinize.adapter.header import AdapterHeader, ModuleHeader, read_header
from koinize.adapter.tensorfile import TORCH_NAMES, TensorSpec
from koinize.digest import open_file_digest
from koinize.errors import InputError
from koinize.files import open_regular, stamp

if TYPE_CHECKING:
    import torch

# Entries of an update. Trained ones are below 1; from here on squares and their sums leave float32.
LARGEST_ENTRY = 1e15
DAMAGED = "its training diverged or the file is damaged"
KEPT = 2  # stacks whose B is kept: threads may be at the last expert of one, and in the next
PIECE_BYTES = 1 << 22  # of a whole module that is compared or copied; a multiple of every item


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank update B A: B is outputs x rank, A is rank x inputs, both float32.

    `scale` is the alpha / r that is folded into B already, for who needs the factors as stored.
    `bound`: no entry of B A is larger, as far as that was looked at; 0 for an update of zeros.
    """

    B: torch.Tensor
    A: torch.Tensor
    scale: float = 1.0
    bound: float = math.inf

    @property
    def rank(self) -> int:
        """The number of columns of B, which is the number of rows of A."""
        return self.B.shape[1]

    def filled(self, rank: int) -> Factors:
        """The same update with factors of this rank, which is not lower: zeros are added."""
        from torch.nn.functional import pad

        more = rank - self.rank
        return replace(self, B=pad(self.B, (0, more)), A=pad(self.A, (0, 0, 0, more)))

    def to(self, device: torch.device | str) -> Factors:
        """The same factors on another device."""
        return replace(self, B=self.B.to(device), A=self.A.to(device))


def magnitude(tensor: torch.Tensor) -> float:
    """The largest magnitude; not finite if an entry is not."""
    import torch

    # Both at once, because each look waits for a GPU.
    low, high = map(float, torch.stack(torch.aminmax(tensor)).tolist())
    return max(-low, high)


class _Opened:
    """An open file, closed with its last reader: threads may read on while a merge is given up."""

    def __init__(self, path: Path) -> None:
        self.file = open_regular(path)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


class Adapter:
    """An open adapter. Use it as a context manager; reading is safe from several threads.

    Raises InputError if the file is no longer the one that the header was read from.
    """

    def __init__(self, header: AdapterHeader) -> None:
        self.header = header
        self._kept: dict[int, torch.Tensor] = {}  # B of stacks, by their places in the file
        self._lock = threading.Lock()
        try:
            self._opened = _Opened(header.weights)
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            raise InputError(what, where=str(header.weights)) from error
        self.refuse_changes()

    def refuse_changes(self) -> None:
        """Raise InputError if anybody wrote into the file since its header was read."""
        now = stamp(os.fstat(self._opened.file.fileno()))
        if self.header.stamp and now != self.header.stamp:
            raise self._changed()

    def digest(self) -> str:
        """SHA-256 of the file's bytes, which stay these while `refuse_changes` raises nothing."""
        with open(self._opened.file.fileno(), "rb", closefd=False) as file:
            file.seek(0)
            found = open_file_digest(file)
        self.refuse_changes()
        return found

    def _changed(self) -> InputError:
        what = "changed while it was read"
        return InputError(what, where=str(self.header.weights), remedy="run again")

    def factors(self, module: str, device: torch.device | str = "cpu") -> Factors:
        """The factors of one module in float32, alpha folded in, on this device.

        Raises InputError on NaN, infinity, and values whose product nobody can have trained.
        """
        entry = self.header.modules[module]
        A, largest_a = self._tensor(f"{module}.lora_A", entry.A, device)
        B, largest_b = self._outputs(entry, device)
        largest = entry.scale * entry.rank * largest_a * largest_b
        if largest > LARGEST_ENTRY:
            raise InputError(
                f"the update of module '{module}' may have entries of {largest:.0e}",
                where=str(self.header.weights),
                expected=f"{LARGEST_ENTRY:.0e} at most",
                remedy=DAMAGED,
            )
        return Factors(B=B.mul_(entry.scale), A=A, scale=entry.scale, bound=largest)

    @cached_property
    def _wholes(self) -> Mapping[str, ModuleHeader]:
        return self.header.wholes

    def stored(self, module: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B of one module, or stack, as they stand in the file, in float32, without alpha.

        Raises InputError on NaN and infinity.
        """
        entry = self._wholes[module]
        A, _ = self._tensor(f"{module}.lora_A", entry.A)
        B, _ = self._tensor(f"{module}.lora_B", entry.B)
        return A, B

    def saved(self, name: str) -> Iterator[memoryview]:
        """The bytes of one tensor of a whole module, in pieces. Raises InputError on NaN."""
        import torch

        spec = self.header.saved[name]
        dtype = getattr(torch, TORCH_NAMES[spec.dtype])
        for start in range(spec.start, spec.end, PIECE_BYTES):
            piece = self._read(start, min(start + PIECE_BYTES, spec.end))
            if not bool(torch.isfinite(piece.view(dtype)).all()):
                raise self._not_finite(name)
            yield piece.numpy().data

    def _not_finite(self, name: str) -> InputError:
        return InputError(
            f"tensor '{name}' holds NaN or infinity",
            where=str(self.header.weights),
            remedy=DAMAGED,
        )

    def _outputs(
        self, entry: ModuleHeader, device: torch.device | str
    ) -> tuple[torch.Tensor, float]:
        """B of one module in float32, and its largest magnitude.

        Of a stack the columns of one expert lie between those of the others: it is read once for
        all of them, who come one after another, and kept meanwhile.
        """
        name = f"{entry.name}.lora_B"
        if not entry.experts:
            return self._tensor(name, entry.B, device)
        with self._lock:
            if entry.B.start not in self._kept:
                if len(self._kept) == KEPT:  # the oldest goes
                    del self._kept[next(iter(self._kept))]
                self._kept[entry.B.start] = self._tensor(name, entry.B, device)[0]
            whole = self._kept[entry.B.start]
        # (outputs, rank, experts)
        part = whole.view(entry.outputs, entry.rank, entry.experts)[:, :, entry.expert].clone()
        return part, magnitude(part)

    def _tensor(
        self, name: str, spec: TensorSpec, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, float]:
        """A tensor in float32, and its largest magnitude."""
        import torch

        dtype = getattr(torch, TORCH_NAMES[spec.dtype])
        stored = self._read(spec.start, spec.end).view(dtype).reshape(spec.shape)
        tensor = stored.to(device).to(torch.float32)  # widened there: half the bytes on the way
        largest = magnitude(tensor)
        if not math.isfinite(largest):
            raise self._not_finite(name)
        return tensor, largest

    def _read(self, start: int, end: int) -> torch.Tensor:
        """The file's bytes [start, end), in memory of their own. Raises InputError for fewer."""
        import torch

        opened = self._opened
        buffer = torch.empty(end - start, dtype=torch.uint8)
        view, done = buffer.numpy().data, 0
        while done < len(view):
            try:
                count = os.preadv(opened.file.fileno(), [view[done:]], start + done)
            except OSError as error:
                what = f"cannot be read: {error.strerror}"
                raise InputError(what, where=str(self.header.weights)) from error
            if not count:  # somebody shortened it
                raise self._changed()
            done += count
        return buffer

    def __enter__(self) -> Adapter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._opened


def open_adapter(folder: Path | str | AdapterHeader) -> Adapter:
    """Open an adapter, from its folder or from a header that was read before."""
    return Adapter(folder if isinstance(folder, AdapterHeader) else read_header(folder))
