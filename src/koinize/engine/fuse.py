"""Adding an adapter to its base model's weights, file by file, with the rounding loss stated."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.adapter import Adapter, AdapterHeader, ModuleHeader, read_header
from koinize.adapter.experts import is_part, whole_name
from koinize.adapter.tensorfile import TORCH_NAMES, TensorSpec, read_tensor_specs
from koinize.engine.conv1d import transposed_modules
from koinize.engine.workers import worker_pool
from koinize.errors import InputError, StepError, nearest
from koinize.files import LARGEST_TEXT, parse_json, read_bytes
from koinize.store import NewFolder, refuse_existing

if TYPE_CHECKING:
    import torch

    from koinize.model.checkpoint import Stored

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
class Target:
    """The base's tensor that one module's update is added to; turned: stored inputs x outputs."""

    module: str
    file: str
    name: str
    spec: TensorSpec
    turned: bool


@dataclass(frozen=True, slots=True)
class Experts:
    """The base's tensors to which the updates of a stack's modules are added, by their names."""

    modules: tuple[str, ...]
    stored: Stored
    places: Mapping[str, tuple[str, TensorSpec]]


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


def planned(header: AdapterHeader, base: Path) -> list[Target | Experts]:
    """Which tensors of a base model's files an adapter changes. Raises InputError."""
    return _plan(header, base, _tensors(base, _weight_files(base)))


def _plan(header: AdapterHeader, base: Path, tensors: Tensors) -> list[Target | Experts]:
    if header.saved:
        raise InputError(
            f"holds the whole modules {', '.join(header.modules_to_save)}, which are no update",
            where=str(header.folder),
            expected="LoRA factors alone",
            remedy="merge it into the base with PEFT",
        )
    linear = [name for name in header.modules if not is_part(name)]
    mapped = _mapped(linear, tensors, base)
    names = {
        module: mapped.get(f"{module}.weight") or _name(module, tensors, base) for module in linear
    }
    _refuse_shared(names, base)
    shapes = {module: tensors[name][1].shape for module, name in names.items()}
    turned = transposed_modules(header, base, shapes)
    found: list[Target | Experts] = [
        _target(header.modules[module], base, (name, *tensors[name]), module in turned)
        for module, name in names.items()
    ]
    return [*found, *_experts(header, base, tensors)]


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


def _experts(header: AdapterHeader, base: Path, tensors: Tensors) -> Iterator[Experts]:
    """The stacks, with what the base's files hold of their parameters."""
    from koinize.model.checkpoint import stored_stacks

    wholes: dict[str, dict[int, ModuleHeader]] = {}
    for name, module in header.modules.items():
        if is_part(name):
            wholes.setdefault(whole_name(name), {})[module.expert] = module
    known = stored_stacks(base, tensors, header.parameters) if wholes else {}
    for whole, modules in wholes.items():
        if whole not in known:
            raise InputError(
                f"has no tensors for the experts '{whole}', which the adapter changes",
                where=str(base),
                remedy=OTHER_BASE,
            )
        stored, first = known[whole], modules[0]
        sides = (first.inputs, first.outputs) if stored.turned else (first.outputs, first.inputs)
        if stored.shape not in ((len(modules), *sides), sides if len(modules) == 1 else ()):
            raise InputError(
                f"parameter '{stored.parameter}' is {list(stored.shape)}",
                where=str(base),
                expected=f"{[len(modules), *sides]}, as the adapter has it",
                remedy=OTHER_BASE,
            )
        order = tuple(modules[expert].name for expert in range(len(modules)))
        yield Experts(order, stored, _places(stored, base, tensors))


def _places(stored: Stored, base: Path, tensors: Tensors) -> dict[str, tuple[str, TensorSpec]]:
    """The tensors that a parameter is made of. Raises InputError for others than those."""
    import torch

    parts = stored.split(torch.empty(stored.shape, device="meta"))
    for name, part in parts.items():
        file, spec = tensors[name]
        if spec.dtype not in TORCH_NAMES or spec.shape != tuple(part.shape):
            raise _other_tensor(base / file, name, spec, tuple(part.shape))
    return {name: tensors[name] for name in parts}


def _mapped(linear: Collection[str], tensors: Tensors, base: Path) -> dict[str, str]:
    """The tensors by the names that transformers gives them, if some module needs it."""
    from koinize.model.checkpoint import weight_names

    if all(f"{module}.weight" in tensors for module in linear):
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
) -> Target:
    name, file, spec = tensor
    shape = (module.inputs, module.outputs) if turned else (module.outputs, module.inputs)
    if spec.dtype not in TORCH_NAMES or spec.shape != shape:
        raise _other_tensor(base / file, name, spec, shape)
    return Target(module.name, file, name, spec, turned)


def _other_tensor(path: Path, name: str, spec: TensorSpec, shape: tuple[int, ...]) -> InputError:
    return InputError(
        f"tensor '{name}' is {spec.dtype} {list(spec.shape)}",
        where=str(path),
        expected=f"{list(shape)} in {', '.join(TORCH_NAMES)}, as the adapter has it",
    )


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
    plan: list[Target | Experts],
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


def _add(adapter: Adapter, draft: Path, target: Target | Experts) -> tuple[float, float]:
    """Add one module, or a parameter of all experts, in the copied files; squared norms of (what
    rounding lost, the update).
    """
    if isinstance(target, Target):
        update = update_of(adapter, target.module, target.turned)
        return _add_tensor(draft / target.file, target.name, target.spec, update)
    import torch

    stored = target.stored
    updates = torch.stack([update_of(adapter, one, stored.turned) for one in target.modules])
    parts = stored.split(updates.view(stored.shape))
    sums = [
        _add_tensor(draft / file, name, spec, parts[name].contiguous())
        for name, (file, spec) in target.places.items()
    ]
    return sum(lost for lost, _ in sums), sum(total for _, total in sums)


def update_of(adapter: Adapter, module: str, turned: bool) -> torch.Tensor:
    """The update of one module as its tensor is stored: turned is inputs x outputs."""
    factors = adapter.factors(module)
    update = factors.B @ factors.A
    return update.T.contiguous() if turned else update


def _add_tensor(
    path: Path, name: str, spec: TensorSpec, update: torch.Tensor
) -> tuple[float, float]:
    """Add to one tensor of a file; the sums as above."""
    import torch

    dtype = getattr(torch, TORCH_NAMES[spec.dtype])
    with path.open("r+b") as file:
        file.seek(spec.start)
        weight = torch.frombuffer(bytearray(file.read(spec.end - spec.start)), dtype=dtype)
        exact = weight.reshape(spec.shape).float() + update
        rounded = exact.to(dtype)
        if not bool(torch.isfinite(rounded).all()):
            raise _not_finite(name, spec, bool(torch.isfinite(weight).all()))
        file.seek(spec.start)
        file.write(rounded.view(torch.uint8).numpy().data)
    lost = (rounded.double() - exact.double()).square().sum()
    return float(lost), float(update.double().square().sum())


def _not_finite(name: str, spec: TensorSpec, base_is: bool) -> InputError:
    where = f"the base's tensor '{name}'"
    if not base_is:
        return InputError("holds NaN or infinity", where=where, remedy="its file is damaged")
    return InputError(
        f"with the update is beyond what {spec.dtype} can hold",
        where=where,
        remedy="check the adapter's values, or convert the base to a wider dtype",
    )
