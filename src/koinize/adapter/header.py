"""What a PEFT LoRA folder holds, from `adapter_config.json` and file headers alone.

Everything that would make a merge wrong is refused here rather than ignored: an adapter means
`W + scale * B A` on the modules it names and nothing else, or it does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from koinize.adapter.config import (
    CONFIG_FILE,
    REFUSED,
    TRAIN_WITHOUT,
    WHOLE_MODULE,
    modules_to_save_of,
    parse_config,
    target_modules_of,
    text_of,
    warnings_of,
)
from koinize.adapter.experts import (
    PART,
    Stack,
    parameters_of,
    part_name,
    stacked,
    stacks,
    whole_name,
)
from koinize.adapter.scales import Scales
from koinize.adapter.tensorfile import ITEM_BYTES, TORCH_NAMES, TensorSpec, read_tensor_file
from koinize.digest import bytes_digest, digest, file_digest
from koinize.errors import InputError
from koinize.files import LARGEST_TEXT, Stamp, read_bytes

WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE)
PICKLE_FILE = "adapter_model.bin"

# Names are cut at all their dots and compared, which a file that is made for it could draw out.
LONGEST_NAME = 1000
TENSOR_NAME = re.compile(r"(?:base_model\.model\.)+(.+)\.lora_([AB])(?:\.default)?\.weight")
# What VeLoRA keeps of the activations for its backward pass; the update is B A all the same.
BACKWARD_ONLY = (".lora_velora_embed", ".lora_velora_embed.default")
# Parts of a name that wrappers for training leave in it; they are no layers.
WRAPPERS = re.compile(
    r"(?:^module\.)|(?:_checkpoint_wrapped_module|_fsdp_wrapped_module|_orig_mod)\."
)


@dataclass(frozen=True, slots=True)
class ModuleHeader:
    """One adapted linear module: the update is `scale * B A`, B outputs x rank, A rank x inputs.

    experts: 0, or how many share the file's tensors (`koinize.adapter.experts`) where this is one
    of them. `A` is then its own part of the tensor, and `B` the tensor of all.
    """

    name: str
    rank: int
    inputs: int
    outputs: int
    scale: float
    A: TensorSpec
    B: TensorSpec
    experts: int = 0

    @property
    def expert(self) -> int:
        """Its number among the experts; 0 for a module of its own."""
        found = PART.fullmatch(self.name)
        return int(found[2]) if found else 0


@dataclass(frozen=True, slots=True)
class AdapterHeader:
    """Everything about an adapter that can be known without reading a tensor.

    saved: the tensors, by their names in the file, of the whole modules in `modules_to_save`.
    parameters: what PEFT adapts besides layers, as the configuration names it.
    config_digest: of the bytes of the configuration that was read. stamp: of the weights' file.
    """

    folder: Path
    base_model: str
    revision: str | None
    task_type: str | None
    fan_in_fan_out: bool
    target_modules: tuple[str, ...] | str | None
    modules: Mapping[str, ModuleHeader]
    warnings: tuple[str, ...]
    modules_to_save: tuple[str, ...] = ()
    saved: Mapping[str, TensorSpec] = field(default_factory=dict)
    config_digest: str = ""
    stamp: Stamp = ()
    parameters: tuple[str, ...] = ()

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS_FILE

    @property
    def wholes(self) -> dict[str, ModuleHeader]:
        """The modules as the file has them: the experts of a stack together, their ranks added."""
        return {
            whole_name(name): module if not module.experts else _whole(module)
            for name, module in self.modules.items()
            if not module.expert
        }


def read_header(folder: Path | str) -> AdapterHeader:
    """Read and check a PEFT LoRA folder without touching a tensor.

    Raises InputError for anything that a merge could not honour: another method than LoRA, DoRA,
    biases, whole saved modules, adapted embeddings or convolutions, pickles, broken files.
    """
    folder = Path(folder)
    content = _read(folder)
    config = parse_config(folder / CONFIG_FILE, content)
    if not (folder / WEIGHTS_FILE).is_file():
        raise _no_weights(folder)
    whole = modules_to_save_of(folder, config)
    specs, stamp = read_tensor_file(folder / WEIGHTS_FILE)
    saved = _saved(folder, whole, specs)
    modules = _modules(folder, config, {n: spec for n, spec in specs.items() if n not in saved})
    return AdapterHeader(
        folder=folder,
        base_model=text_of(config, "base_model_name_or_path") or "",
        revision=text_of(config, "revision"),
        task_type=text_of(config, "task_type"),
        fan_in_fan_out=config.get("fan_in_fan_out") is True,
        target_modules=target_modules_of(config),
        modules=modules,
        warnings=warnings_of(config),
        modules_to_save=whole,
        saved=saved,
        config_digest=bytes_digest(content),
        stamp=stamp,
        parameters=parameters_of(config, str(folder / CONFIG_FILE)),
    )


def files_digest(folder: Path) -> str:
    """What a project knows an adapter from elsewhere by: its two files, whatever they hold.

    The card of a merge names its inputs by another digest of them; decision 002 says why both stay.
    Raises OSError.
    """
    return digest([file_digest(folder / name) for name in ADAPTER_FILES])


def _no_weights(folder: Path) -> InputError:
    if (folder / PICKLE_FILE).exists():
        return InputError(
            f"{PICKLE_FILE} is a pickle, which can run any program when it is read",
            where=str(folder),
            expected=WEIGHTS_FILE,
            remedy="load it in PEFT where you trust it and save_pretrained() it again",
        )
    return InputError(
        f"there is no {WEIGHTS_FILE}",
        where=str(folder),
        expected="a PEFT adapter folder",
        remedy="give the folder that holds the adapter itself",
    )


def _read(folder: Path) -> bytes:
    """The configuration's bytes."""
    path = folder / CONFIG_FILE
    try:
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "does not exist"
            raise InputError(what, where=str(folder), expected="a PEFT adapter folder")
        return read_bytes(path, LARGEST_TEXT)
    except FileNotFoundError:
        raise InputError(
            f"there is no {CONFIG_FILE}", where=str(folder), expected="a PEFT adapter folder"
        ) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _saved(
    folder: Path, whole: tuple[str, ...], specs: Mapping[str, TensorSpec]
) -> dict[str, TensorSpec]:
    """The tensors of the whole modules. Raises InputError for a module that has none."""
    saved: dict[str, TensorSpec] = {}
    for module in whole:
        found = {name: specs[name] for name in sorted(specs) if _is_part(name, module)}
        if not found:
            raise InputError(
                f"modules_to_save names '{module}', and {WEIGHTS_FILE} has no tensor of it",
                where=str(folder / CONFIG_FILE),
                remedy="save the adapter again",
            )
        saved |= found
    for name, spec in saved.items():
        if spec.dtype not in TORCH_NAMES:
            raise InputError(
                f"tensor '{name}' is {spec.dtype}",
                where=str(folder / WEIGHTS_FILE),
                expected=f"one of {', '.join(TORCH_NAMES)}",
            )
    return dict(sorted(saved.items()))


def _is_part(name: str, module: str) -> bool:
    """Whether a tensor belongs to a whole module, of which only the end of the name is given."""
    inside = name.removeprefix("base_model.model")
    _, found, part = inside.rpartition(f".{module}.")
    return inside != name and bool(found and part) and "lora_" not in part


def _modules(
    folder: Path, config: Mapping[str, object], specs: Mapping[str, TensorSpec]
) -> dict[str, ModuleHeader]:
    where = str(folder / WEIGHTS_FILE)
    sides: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in specs.items():
        if len(name) > LONGEST_NAME:
            raise InputError(
                f"has a tensor whose name has {len(name)} characters",
                where=where,
                expected=f"at most {LONGEST_NAME}",
            )
        if name.endswith(BACKWARD_ONLY):
            continue
        plain = WRAPPERS.sub("", name)
        found = TENSOR_NAME.fullmatch(plain) if name.isprintable() else None
        if found is None or PART.fullmatch(found[1]):
            raise _unusable(name, where)
        module, side = found.groups()
        if side in (factors := sides.setdefault(module, {})):
            raise InputError(
                f"module '{module}' has two tensors for lora_{side}, and nothing says which counts",
                where=where,
                expected="one of them, with or without .default, and with or without wrappers",
                remedy="save the adapter again",
            )
        factors[side] = spec
    if not sides:
        raise InputError("holds no LoRA factors", where=where)
    modules = dict(_headers(folder, config, sides))
    return {name: modules[name] for name in sorted(modules)}


def _headers(
    folder: Path, config: Mapping[str, object], sides: Mapping[str, Mapping[str, TensorSpec]]
) -> Iterator[tuple[str, ModuleHeader]]:
    """Every module by its name, and the experts of a stack by theirs."""
    where, path = str(folder / WEIGHTS_FILE), folder / CONFIG_FILE
    parameters = parameters_of(config, str(path))
    owned = (
        stacked(sides, parameters, config.get("target_modules"), str(path)) if parameters else {}
    )
    of_parameters = {name for names in owned.values() for name in names}
    linear = sorted(sides.keys() - of_parameters)
    known = {one for names in owned.values() for some in names.values() for one in some}
    scales = Scales(path, config, sorted({*linear, *known}))
    for name in linear:
        module = _module(where, name, sides[name])
        yield name, replace(module, scale=scales.of(name, module.rank))
    for names in owned.values():
        wholes = {name: _module(where, name, sides[name]) for name in names}
        rows = {name: module.rank for name, module in wholes.items()}
        kinds = {one: scales.stated(one) for some in names.values() for one in some}
        for name, stack in stacks(rows, names, kinds, str(path)).items():
            for expert in range(stack.experts):
                part = _part(wholes[name], stack, expert)
                yield part.name, part


def _part(whole: ModuleHeader, stack: Stack, expert: int) -> ModuleHeader:
    """One expert of a stack."""
    shape = stack.rank, whole.inputs
    size = stack.rank * whole.inputs * ITEM_BYTES[whole.A.dtype]
    start = whole.A.start + expert * size
    return replace(
        whole,
        name=part_name(whole.name, expert),
        rank=stack.rank,
        scale=stack.scale,
        A=TensorSpec(whole.A.dtype, shape, start, start + size),
        experts=stack.experts,
    )


def _whole(first: ModuleHeader) -> ModuleHeader:
    """The stack of which this is the first expert."""
    rank, A = first.rank * first.experts, first.A
    end = A.start + first.experts * (A.end - A.start)
    spec = TensorSpec(A.dtype, (rank, first.inputs), A.start, end)
    return replace(first, name=whole_name(first.name), rank=rank, A=spec, experts=0)


def _unusable(name: str, where: str) -> InputError:
    """The refusal of a tensor that is no factor of a linear layer."""
    remedy = TRAIN_WITHOUT
    if "lora_magnitude_vector" in name:
        what = f"belongs to DoRA: {REFUSED['use_dora']}"
    elif ".base_layer." in name:
        what = "is the base model's own, which PEFT saves beside an adapted embedding or lm_head"
        remedy = "save the adapter again with save_embedding_layers=False"
    elif "lora_embedding" in name:
        what = "is LoRA on an embedding, which is not supported"
    elif name.endswith(".bias"):
        what = "is a bias, which is no part of B A"
    elif "lora_" not in name:
        what = f"is a whole module, not a LoRA factor: {WHOLE_MODULE}"
        remedy = "name the module in modules_to_save if it was trained, or save without it"
    else:
        what, remedy = "has a name that PEFT does not give to a LoRA factor", ""
    return InputError(f"tensor '{name}' {what}", where=where, remedy=remedy)


def _module(where: str, name: str, sides: Mapping[str, TensorSpec]) -> ModuleHeader:
    """A module, whose scale is not known yet."""
    if len(sides) != 2:
        missing = "B" if "A" in sides else "A"
        raise InputError(f"module '{name}' has no lora_{missing}", where=where)
    A, B = sides["A"], sides["B"]
    if len(A.shape) != 2 or len(B.shape) != 2 or A.shape[0] != B.shape[1] or 0 in A.shape + B.shape:
        raise InputError(
            f"module '{name}' has A {list(A.shape)} and B {list(B.shape)}",
            where=where,
            expected="A [rank, inputs] and B [outputs, rank] of a linear layer",
        )
    for side, spec in sides.items():
        if spec.dtype not in TORCH_NAMES:
            raise InputError(
                f"module '{name}' has lora_{side} in {spec.dtype}",
                where=where,
                expected=f"one of {', '.join(TORCH_NAMES)}",
            )
    rank = A.shape[0]
    return ModuleHeader(
        name=name,
        rank=rank,
        inputs=A.shape[1],
        outputs=B.shape[0],
        scale=1.0,
        A=A,
        B=B,
    )
