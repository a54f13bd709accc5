"""The safetensors format: eight bytes of header length, a JSON header, then raw tensors.

The header is checked against the file before anything trusts it: a file that is truncated, too
long, or whose header lies about offsets is refused here, with the reason.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from koinize.digest import file_digest, piecewise
from koinize.errors import InputError
from koinize.files import Stamp, open_regular, stamp

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("F16", "BF16", "U16", "I16"), 2),
    **dict.fromkeys(("F32", "U32", "I32"), 4),
    **dict.fromkeys(("F64", "U64", "I64"), 8),
}
# What the arithmetic accepts; other tensors of a file may only be passed by.
TORCH_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
FORMAT_NAMES = {name: tag for tag, name in TORCH_NAMES.items()}
LARGEST_HEADER = 1 << 25  # bytes; 40,000 tensors take a fifth of it
LENGTH_BYTES = 8
MOST_DIMENSIONS = 16
LARGEST_COUNT = 1 << 53  # of entries or bytes; beyond it a product of sizes takes its time


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a file: its dtype tag, its shape, and its bytes' [start, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_tensor_specs(path: Path) -> dict[str, TensorSpec]:
    """Every tensor's place in a safetensors file, by name. Raises InputError for a broken file."""
    return read_tensor_file(path)[0]


def read_tensor_file(path: Path) -> tuple[dict[str, TensorSpec], Stamp]:
    """The same, and the stamp of the file that was read."""
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            head = file.read(LENGTH_BYTES)
            if len(head) < LENGTH_BYTES:
                raise _broken(path, f"it has {size} bytes, less than a header")
            length: int = struct.unpack("<Q", head)[0]
            if length > min(size - LENGTH_BYTES, LARGEST_HEADER):
                raise _broken(path, f"its header claims {length} bytes of a file of {size}")
            text = file.read(length)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    entries = _parse(path, text)
    entries.pop("__metadata__", None)
    start = LENGTH_BYTES + length
    specs = {name: _spec(path, name, entry, start) for name, entry in entries.items()}
    _check_layout(path, specs.values(), start, size)
    return specs, stamp(status)


def _broken(path: Path, reason: str) -> InputError:
    return InputError(
        f"is not a usable safetensors file: {reason}",
        where=str(path),
        remedy="copy or save the adapter again",
    )


def _parse(path: Path, text: bytes) -> dict[str, object]:
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not JSON ({type(error).__name__})") from None
    if not isinstance(entries, dict):
        raise _broken(path, "its header is not a JSON object")
    return entries


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _spec(path: Path, name: str, entry: object, start: int) -> TensorSpec:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [first, last]}:
            counts = [*shape, first, last]
            if len(shape) > MOST_DIMENSIONS or not all(map(_is_count, counts)):
                raise _broken(path, f"tensor '{name}' has a shape or offset that is no count")
        case _:
            raise _broken(path, f"tensor '{name}' lacks dtype, shape or data_offsets")
    if dtype not in ITEM_BYTES:
        raise InputError(
            f"tensor '{name}' has dtype {dtype}",
            where=str(path),
            expected=f"one of {', '.join(ITEM_BYTES)}",
        )
    if last - first != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _broken(path, f"tensor '{name}' does not fill the bytes that it claims")
    return TensorSpec(dtype, tuple(shape), start + first, start + last)


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number <= LARGEST_COUNT


def _check_layout(path: Path, specs: Iterable[TensorSpec], start: int, size: int) -> None:
    position = start
    for spec in sorted(specs, key=lambda spec: (spec.start, spec.end)):
        if spec.start != position:
            raise _broken(path, "its tensors overlap or leave gaps")
        position = spec.end
    if position != size:
        fate = "truncated" if position > size else "too long"
        raise _broken(path, f"it is {fate}: {size} bytes where its header says {position}")


class TensorWriter:
    """Writes a safetensors file tensor by tensor, in the order in which they were announced.

    Shapes may turn out smaller than announced (a rank that only the values decide): the header's
    place is reserved at its largest and filled in last. `copied` are tensors of another file that
    follow the others in their own dtypes. `digest` is the file's, once it is finished.
    """

    def __init__(
        self,
        path: Path,
        largest: Mapping[str, tuple[int, ...]],
        dtype: str,
        copied: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        copies = copied or {}
        self._tags = dict.fromkeys(largest, FORMAT_NAMES[dtype])
        self._tags |= {name: spec.dtype for name, spec in copies.items()}
        largest = {**largest, **{name: spec.shape for name, spec in copies.items()}}
        self._names = iter(largest)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._length = len(self._header(largest))
        self._length += -(LENGTH_BYTES + self._length) % 64  # tensors begin on a cache line
        self._path, self._file = path, path.open("xb")
        self._expected = self._head(largest)
        self._file.write(self._expected)
        self._digest = piecewise()
        self._digest.update(self._expected)

    def write(self, name: str, shape: tuple[int, ...], pieces: Iterable[memoryview]) -> None:
        """Append one tensor, given as its bytes in pieces.

        Raises ValueError out of order, or if the bytes are not as many as the shape has.
        """
        if name != next(self._names, None):
            raise ValueError(f"tensor '{name}' was not announced here")
        self._shapes[name] = shape
        missing = math.prod(shape) * ITEM_BYTES[self._tags[name]]
        for piece in pieces:
            self._digest.update(piece)  # now that it is in the cache
            self._file.write(piece)
            missing -= piece.nbytes
        if missing:
            raise ValueError(f"tensor '{name}' lacks {missing} bytes of its shape")

    def finish(self) -> None:
        """Fill in the header and close the file, which is then as it will stay."""
        if self._file.closed:
            return
        head = self._head(self._shapes)
        self._file.seek(0)
        self._file.write(head)
        self._file.close()
        as_expected = head == self._expected
        self.digest = self._digest.hexdigest() if as_expected else file_digest(self._path)

    def _head(self, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
        return struct.pack("<Q", self._length) + self._header(shapes).ljust(self._length)

    def _header(self, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        position = 0
        for name, shape in shapes.items():
            end = position + math.prod(shape) * ITEM_BYTES[self._tags[name]]
            entries[name] = {
                "dtype": self._tags[name],
                "shape": list(shape),
                "data_offsets": [position, end],
            }
            position = end
        return json.dumps(entries, separators=(",", ":")).encode()

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        self._file.close()
