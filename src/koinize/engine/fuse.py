"""Adding an adapter to its base model's weights, file by file, with the rounding loss stated."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from koinize.adapter import Adapter, AdapterHeader, read_header
from koinize.adapter.tensorfile import TORCH_NAMES, TensorSpec, read_tensor_specs
from koinize.adapter.writer import Draft, refuse_existing
from koinize.engine.stream import single_threaded
from koinize.errors import InputError, StepError, did_you_mean

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


@dataclass(frozen=True, slots=True)
class FuseReport:
    """`loss` is ||written - exact|| / ||update||: what the base's dtype did to the adapter."""

    out: Path
    modules: int
    loss: float


@dataclass(frozen=True, slots=True)
class _Target:
    """The base's tensor that one module's update is added to."""

    module: str
    file: str
    spec: TensorSpec


def fuse_adapter(
    adapter: Path | str,
    base: Path | str,
    *,
    out: Path | str,
    progress: Callable[[int, int], None] | None = None,
) -> FuseReport:
    """Write the base model with `W + B A` in place of W: safetensors files of the same layout.

    The sum is taken in float32 and rounded once, to the base's own dtype; the loss that this causes
    is reported (bf16 may lose a third of a small update). Everything else in the base's folder is
    copied. Raises InputError if the adapter does not fit the base, before anything is written.
    """
    header, base = read_header(adapter), Path(base)
    refuse_existing(Path(out))
    plan = _plan(header, base)
    try:
        with closing(Draft(out)) as draft, Adapter(header) as opened:
            _copy(base, draft.folder, {one.file for one in plan})
            lost, total = _add_all(opened, draft.folder, plan, progress)
            draft.commit()
    except OSError as error:
        raise StepError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return FuseReport(Path(out), len(plan), math.sqrt(lost / total) if total else 0.0)


def _plan(header: AdapterHeader, base: Path) -> list[_Target]:
    if header.saved:
        raise InputError(
            f"holds the whole modules {', '.join(header.modules_to_save)}, which are no update",
            where=str(header.folder),
            expected="LoRA factors alone",
            remedy="merge it into the base with PEFT",
        )
    tensors = {
        name: (file, spec)
        for file in _weight_files(base)
        for name, spec in read_tensor_specs(base / file).items()
    }
    return [_target(header, module, tensors, base) for module in header.modules]


def _weight_files(base: Path) -> list[str]:
    files = sorted(path.name for path in base.glob("*.safetensors"))
    index = base / "model.safetensors.index.json"
    if index.is_file():
        try:
            files = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError("is not an index of weights", where=str(index)) from None
    if not files or any(Path(name).name != name or not (base / name).is_file() for name in files):
        raise InputError(
            "does not hold its safetensors files",
            where=str(base),
            expected="the folder of a base model",
        )
    return files


def _target(
    header: AdapterHeader,
    module: str,
    tensors: Mapping[str, tuple[str, TensorSpec]],
    base: Path,
) -> _Target:
    # A checkpoint may be of the model with or without its head, which adds or takes one prefix.
    names = [
        f"{module}.weight",
        f"{module}.weight".removeprefix("model."),
        f"model.{module}.weight",
    ]
    name = next((one for one in names if one in tensors), None)
    if name is None:
        raise InputError(
            f"has no tensor '{names[0]}', which the adapter changes",
            where=str(base),
            remedy=did_you_mean(names[0], tensors),
        )
    file, spec = tensors[name]
    entry = header.modules[module]
    shape = (entry.outputs, entry.inputs)
    if spec.dtype not in TORCH_NAMES or spec.shape != (shape[::-1] if _turned(header) else shape):
        raise InputError(
            f"tensor '{name}' is {spec.dtype} {list(spec.shape)}",
            where=str(base / file),
            expected=f"{list(shape)} in {', '.join(TORCH_NAMES)}, as the adapter has it",
        )
    return _Target(module, file, spec)


def _turned(header: AdapterHeader) -> bool:
    """Whether the base keeps its weights as inputs x outputs (Conv1D)."""
    return header.fan_in_fan_out


def _copy(base: Path, draft: Path, weights: set[str]) -> None:
    for path in sorted(_files_to_copy(base)):
        shutil.copyfile(path, draft / path.name)
    missing = weights - {path.name for path in draft.iterdir()}
    for name in sorted(missing):
        shutil.copyfile(base / name, draft / name)


def _files_to_copy(base: Path) -> Iterator[Path]:
    for path in base.iterdir():
        weights = path.suffix in WEIGHT_SUFFIXES and path.suffix != ".safetensors"
        if path.is_file() and not weights and not path.name.startswith("."):
            yield path


def _add_all(
    adapter: Adapter,
    draft: Path,
    plan: list[_Target],
    progress: Callable[[int, int], None] | None,
) -> tuple[float, float]:
    """Add every module; squared norms over all of (what rounding lost, the update)."""
    lost = total = 0.0
    with ThreadPoolExecutor(1, initializer=single_threaded) as pool:
        try:
            for done, result in enumerate(pool.map(lambda t: _add(adapter, draft, t), plan), 1):
                lost, total = lost + result[0], total + result[1]
                if progress is not None:
                    progress(done, len(plan))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return lost, total


def _add(adapter: Adapter, draft: Path, target: _Target) -> tuple[float, float]:
    """Add one module in the copied file; squared norms of (what rounding lost, the update)."""
    import torch

    factors = adapter.factors(target.module)
    update = factors.B @ factors.A
    if _turned(adapter.header):
        update = update.T.contiguous()
    spec = target.spec
    dtype = getattr(torch, TORCH_NAMES[spec.dtype])
    with (draft / target.file).open("r+b") as file:
        file.seek(spec.start)
        weight = torch.frombuffer(bytearray(file.read(spec.end - spec.start)), dtype=dtype)
        exact = weight.reshape(spec.shape).float() + update
        rounded = exact.to(dtype)
        file.seek(spec.start)
        file.write(rounded.view(torch.uint8).numpy().data)
    lost = (rounded.double() - exact.double()).square().sum()
    return float(lost), float(update.double().square().sum())
