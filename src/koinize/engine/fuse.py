"""Adding an adapter to its base model's weights, file by file, with the rounding loss stated."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from koinize.adapter import Adapter, AdapterHeader, ModuleHeader, read_header
from koinize.adapter.tensorfile import TORCH_NAMES, TensorSpec, read_tensor_specs
from koinize.engine.conv1d import transposed_modules
from koinize.engine.workers import worker_pool
from koinize.errors import InputError, StepError, nearest
from koinize.files import LARGEST_TEXT, parse_json, read_bytes
from koinize.store import NewFolder, refuse_existing

INDEX_FILE = "model.safetensors.index.json"
OTHER_BASE = "give the base that the adapter was trained on"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


@dataclass(frozen=True, slots=True)
class FuseReport:
    """`loss` is ||written - exact|| / ||update||: what the base's dtype did to the adapter."""

    out: Path
    modules: int
    loss: float


@dataclass(frozen=True, slots=True)
class _Target:
    """The base's tensor that one module's update is added to; turned: stored inputs x outputs."""

    module: str
    file: str
    name: str
    spec: TensorSpec
    turned: bool


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
    copied, except weights besides the model's own. `out` exists only after success. Raises
    InputError if the adapter does not fit the base, or if a sum is not finite.
    """
    header, base = read_header(adapter), Path(base)
    refuse_existing(Path(out))
    files = _weight_files(base)
    tensors = _tensors(base, files)
    plan = _plan(header, base, tensors)
    try:
        with closing(NewFolder(out)) as draft, Adapter(header) as opened:
            _copy(base, draft.folder, files)
            _refuse_changes(base, draft.folder, files, tensors)
            lost, total = _add_all(opened, draft.folder, plan, progress)
            opened.refuse_changes()
            draft.commit()
    except OSError as error:
        raise StepError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return FuseReport(Path(out), len(plan), math.sqrt(lost / total) if total else 0.0)


Tensors = Mapping[str, tuple[str, TensorSpec]]


def _plan(header: AdapterHeader, base: Path, tensors: Tensors) -> list[_Target]:
    if header.saved:
        raise InputError(
            f"holds the whole modules {', '.join(header.modules_to_save)}, which are no update",
            where=str(header.folder),
            expected="LoRA factors alone",
            remedy="merge it into the base with PEFT",
        )
    mapped = _mapped(header, tensors, base)
    names = {
        module: mapped.get(f"{module}.weight") or _name(module, tensors, base)
        for module in header.modules
    }
    _refuse_shared(names, base)
    shapes = {module: tensors[name][1].shape for module, name in names.items()}
    turned = transposed_modules(header, base, shapes)
    return [
        _target(header.modules[module], base, (name, *tensors[name]), module in turned)
        for module, name in names.items()
    ]


def _weight_files(base: Path) -> list[str]:
    try:
        files = sorted(path.name for path in base.glob("*.safetensors"))
        index = base / INDEX_FILE
        if index.is_file():
            files = _indexed(index)
        whole = bool(files) and all((base / name).is_file() for name in files)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(base)) from error
    if not base.is_dir():
        raise InputError("is no folder", where=str(base), expected="the folder of a base model")
    if not whole or any(Path(name).name != name for name in files):
        raise InputError(
            "does not hold its safetensors files",
            where=str(base),
            expected="the folder of a base model",
        )
    return files


def _indexed(index: Path) -> list[str]:
    try:
        files = set(parse_json(read_bytes(index, LARGEST_TEXT))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        files = {None}
    if not all(isinstance(name, str) for name in files):
        raise InputError("is not an index of weights", where=str(index))
    return sorted(files)


def _tensors(base: Path, files: list[str]) -> dict[str, tuple[str, TensorSpec]]:
    """(file, place) of every tensor. Raises InputError if two files hold one of the same name."""
    found: dict[str, tuple[str, TensorSpec]] = {}
    # Also files that the index leaves out: which of two a program loads would be its own affair.
    for file in sorted({*files, *(path.name for path in base.glob("*.safetensors"))}):
        for name, spec in read_tensor_specs(base / file).items():
            other, _ = found.setdefault(name, (file, spec))
            if other != file:
                raise InputError(
                    f"holds tensor '{name}' in {other} and in {file}",
                    where=str(base),
                    expected="every tensor once",
                    remedy="remove the file that does not belong to the model",
                )
    return {name: place for name, place in found.items() if place[0] in files}


def _mapped(header: AdapterHeader, tensors: Tensors, base: Path) -> dict[str, str]:
    """The tensors by the names that transformers gives them, if some module needs it."""
    from koinize.model.checkpoint import weight_names

    if all(f"{module}.weight" in tensors for module in header.modules):
        return {}
    return weight_names(base, tensors)


def _name(module: str, tensors: Tensors, base: Path) -> str:
    """The tensor of a module. Raises InputError if there is none, or more than one may be meant."""
    wanted = f"{module}.weight"
    # A checkpoint may be of the model with or without its head, which takes or adds one prefix:
    # "model.", "transformer.", or the name of an encoder.
    found = [name for name in (wanted, wanted.partition(".")[2]) if name in tensors][:1]
    found = found or [name for name in tensors if name.partition(".")[2] == wanted]
    if not found:
        near = nearest(wanted, tensors)
        raise InputError(
            f"has no tensor '{wanted}', which the adapter changes",
            where=str(base),
            remedy=f"did you mean '{near}'?" if near else OTHER_BASE,
        )
    if len(found) > 1:
        raise InputError(
            f"has '{found[0]}' and '{found[1]}', and the adapter changes a '{wanted}'",
            where=str(base),
            remedy=OTHER_BASE,
        )
    return found[0]


def _refuse_shared(names: Mapping[str, str], base: Path) -> None:
    """Raises InputError if two modules of the adapter would change one tensor."""
    modules: dict[str, str] = {}
    for module, name in names.items():
        if modules.setdefault(name, module) != module:
            raise InputError(
                f"has one tensor '{name}' for the modules '{modules[name]}' and '{module}'",
                where=str(base),
                remedy=OTHER_BASE,
            )


def _target(
    module: ModuleHeader, base: Path, tensor: tuple[str, str, TensorSpec], turned: bool
) -> _Target:
    name, file, spec = tensor
    shape = (module.inputs, module.outputs) if turned else (module.outputs, module.inputs)
    if spec.dtype not in TORCH_NAMES or spec.shape != shape:
        raise InputError(
            f"tensor '{name}' is {spec.dtype} {list(spec.shape)}",
            where=str(base / file),
            expected=f"{list(shape)} in {', '.join(TORCH_NAMES)}, as the adapter has it",
        )
    return _Target(module.name, file, name, spec, turned)


def _copy(base: Path, draft: Path, weights: list[str]) -> None:
    names = {path.name for path in base.iterdir() if path.is_file() and _belongs(path)}
    for name in sorted(names | set(weights)):
        shutil.copyfile(base / name, draft / name)


def _refuse_changes(base: Path, copy: Path, files: list[str], tensors: Tensors) -> None:
    """Raise InputError if what was copied has not the tensors that were planned with."""
    if _tensors(copy, files) != tensors:
        raise InputError("changed while it was read", where=str(base), remedy="run again")


def _belongs(path: Path) -> bool:
    """Whether a file goes along: weights besides the model's own would be those without the sum."""
    return path.suffix not in WEIGHT_SUFFIXES and not path.name.startswith(".")


def _add_all(
    adapter: Adapter,
    draft: Path,
    plan: list[_Target],
    progress: Callable[[int, int], None] | None,
) -> tuple[float, float]:
    """Add every module; squared norms over all of (what rounding lost, the update)."""
    lost = total = 0.0
    with worker_pool(1) as pool:
        for done, result in enumerate(pool.map(lambda t: _add(adapter, draft, t), plan), 1):
            lost, total = lost + result[0], total + result[1]
            if progress is not None:
                progress(done, len(plan))
    return lost, total


def _add(adapter: Adapter, draft: Path, target: _Target) -> tuple[float, float]:
    """Add one module in the copied file; squared norms of (what rounding lost, the update)."""
    import torch

    factors = adapter.factors(target.module)
    update = factors.B @ factors.A
    if target.turned:
        update = update.T.contiguous()
    spec = target.spec
    dtype = getattr(torch, TORCH_NAMES[spec.dtype])
    with (draft / target.file).open("r+b") as file:
        file.seek(spec.start)
        weight = torch.frombuffer(bytearray(file.read(spec.end - spec.start)), dtype=dtype)
        exact = weight.reshape(spec.shape).float() + update
        rounded = exact.to(dtype)
        if not bool(torch.isfinite(rounded).all()):
            raise _not_finite(target, bool(torch.isfinite(weight).all()))
        file.seek(spec.start)
        file.write(rounded.view(torch.uint8).numpy().data)
    lost = (rounded.double() - exact.double()).square().sum()
    return float(lost), float(update.double().square().sum())


def _not_finite(target: _Target, base_is: bool) -> InputError:
    where = f"the base's tensor '{target.name}'"
    if not base_is:
        return InputError("holds NaN or infinity", where=where, remedy="its file is damaged")
    return InputError(
        f"with the update is beyond what {target.spec.dtype} can hold",
        where=where,
        remedy="check the adapter's values, or convert the base to a wider dtype",
    )
