"""What a PEFT LoRA folder holds, from `adapter_config.json` and file headers alone.

Everything that would make a merge wrong is refused here rather than ignored: an adapter means
`W + scale * B A` on the modules it names and nothing else, or it does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from koinize.adapter.scales import Scales
from koinize.adapter.tensorfile import TORCH_NAMES, TensorSpec, read_tensor_file
from koinize.digest import bytes_digest
from koinize.errors import InputError
from koinize.files import LARGEST_TEXT, Stamp, parse_json, read_bytes
from koinize.shown import line, without_secrets

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"

# Keys that change what the adapter computes, in words for the message.
REFUSED = {
    "use_dora": "DoRA rescales the base weights' columns, which no sum of B A can express",
    "lora_bias": "a bias on B is no part of B A",
    "target_parameters": "LoRA on bare parameters is not supported",
    "trainable_token_indices": "rows of the embedding were trained beside the LoRA factors",
    "alora_invocation_tokens": "an activated LoRA applies to a part of the input only",
    "layer_replication": "the base model's layers were replicated",
    "use_qalora": "QALoRA pools its input",
    "use_bdlora": "block-diagonal LoRA is not supported",
    "arrow_config": "Arrow routes between adapters",
    "kasa_config": "KaSA rescales by learned singular values",
}
SWITCHES = ("fan_in_fan_out", "use_rslora")
TRAIN_WITHOUT = "train the adapter again without it"
WHOLE_MODULE = "whole modules were trained beside the LoRA factors"
# Keys that say how the adapter was made or where it applies, or that PEFT has retired.
# fmt: off
HARMLESS = frozenset((
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config",
    "enable_lora", "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
    "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_core",
    "merge_weights", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "unsloth_fixed",
    "use_rslora", "velora_config",
))
# fmt: on
TASK_TYPES = (
    "CAUSAL_LM",
    "FEATURE_EXTRACTION",
    "QUESTION_ANS",
    "SEQ_2_SEQ_LM",
    "SEQ_CLS",
    "TOKEN_CLS",
)  # fmt: skip
# Initialisations that replace W by a residual: the saved B A belongs on that residual.
RESIDUAL_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")

# Names are cut at all their dots and compared, which a file that is made for it could draw out.
LONGEST_NAME = 1000
MOST_WHOLE_MODULES = 100
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
LONGEST_TEXT = 4096  # of a base model's name, which may be a path
TENSOR_NAME = re.compile(r"(?:base_model\.model\.)+(.+)\.lora_([AB])(?:\.default)?\.weight")
# What VeLoRA keeps of the activations for its backward pass; the update is B A all the same.
BACKWARD_ONLY = (".lora_velora_embed", ".lora_velora_embed.default")
# Parts of a name that wrappers for training leave in it; they are no layers.
WRAPPERS = re.compile(
    r"(?:^module\.)|(?:_checkpoint_wrapped_module|_fsdp_wrapped_module|_orig_mod)\."
)


@dataclass(frozen=True, slots=True)
class ModuleHeader:
    """One adapted linear module: the update is `scale * B A`, B outputs x rank, A rank x inputs."""

    name: str
    rank: int
    inputs: int
    outputs: int
    scale: float
    A: TensorSpec
    B: TensorSpec


@dataclass(frozen=True, slots=True)
class AdapterHeader:
    """Everything about an adapter that can be known without reading a tensor.

    saved: the tensors, by their names in the file, of the whole modules in `modules_to_save`.
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

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS_FILE


def read_header(folder: Path | str) -> AdapterHeader:
    """Read and check a PEFT LoRA folder without touching a tensor.

    Raises InputError for anything that a merge could not honour: another method than LoRA, DoRA,
    biases, whole saved modules, adapted embeddings or convolutions, pickles, broken files.
    """
    folder = Path(folder)
    content = _read(folder)
    config = _parse(folder / CONFIG_FILE, content)
    if not (folder / WEIGHTS_FILE).is_file():
        raise _no_weights(folder)
    whole = _modules_to_save(folder, config)
    specs, stamp = read_tensor_file(folder / WEIGHTS_FILE)
    saved = _saved(folder, whole, specs)
    modules = _modules(folder, config, {n: spec for n, spec in specs.items() if n not in saved})
    return AdapterHeader(
        folder=folder,
        base_model=_text(config, "base_model_name_or_path") or "",
        revision=_text(config, "revision"),
        task_type=_text(config, "task_type"),
        fan_in_fan_out=config.get("fan_in_fan_out") is True,
        target_modules=_target_modules(config),
        modules=modules,
        warnings=_warnings(config),
        modules_to_save=whole,
        saved=saved,
        config_digest=bytes_digest(content),
        stamp=stamp,
    )


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


def _parse(path: Path, content: bytes) -> dict[str, object]:
    try:
        config = parse_json(content.decode("utf-8"))
    except ValueError as error:
        raise InputError(f"is not JSON ({type(error).__name__})", where=str(path)) from None
    if not isinstance(config, dict):
        raise InputError("is not a JSON object", where=str(path))
    _refuse_texts(path, config)
    _refuse(path, config)
    return config


def _refuse_texts(path: Path, config: Mapping[str, object]) -> None:
    """Refuse what no file could hold again, and a task that PEFT does not have."""
    for text in _texts(config):
        if HALF_CHARACTER.search(text):
            raise InputError(
                f"holds half a character (a lone surrogate) in '{text}'",
                where=str(path),
                expected="text that can be written as UTF-8",
            )
    for key in ("base_model_name_or_path", "revision"):
        if len(text := _text(config, key) or "") > LONGEST_TEXT:
            what = f"{key} has {len(text)} characters"
            raise InputError(what, where=str(path), expected=f"at most {LONGEST_TEXT}")
    if (task := config.get("task_type")) is not None and task not in TASK_TYPES:
        what = f"task_type is {task!r}"
        raise InputError(what, where=str(path), expected=f"one of {', '.join(TASK_TYPES)}")


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _refuse(path: Path, config: Mapping[str, object]) -> None:
    if "peft_type" not in config and ("fine_tune_type" in config or "lora_parameters" in config):
        raise InputError(
            "is the configuration of an MLX adapter",
            where=str(path),
            expected="an adapter that PEFT wrote",
            remedy="convert it: PEFT's lora_A and lora_B are MLX's lora_a and lora_b transposed, "
            "and its lora_alpha is MLX's scale times the rank",
        )
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"peft_type is {config.get('peft_type')!r}",
            where=str(path),
            expected="'LORA'",
            remedy="train a LoRA adapter in its place",
        )
    if config.get("bias", "none") not in ("none", None):
        raise InputError(
            f"bias is {config['bias']!r}: biases were trained beside the LoRA factors",
            where=str(path),
            expected="'none'",
            remedy="train the adapter again with it",
        )
    for key in SWITCHES:
        if not isinstance(config.get(key), bool | None):
            raise InputError(f"{key} is {config[key]!r}", where=str(path), expected="true or false")
    for key, value in config.items():
        if key in HARMLESS or not value:
            continue
        if key in REFUSED:
            raise InputError(f"{key} is set: {REFUSED[key]}", where=str(path), remedy=TRAIN_WITHOUT)
        raise InputError(
            f"unknown key '{key}' is set and may change what the adapter means",
            where=str(path),
            remedy="remove it if it only mattered in training",
        )


def _warnings(config: Mapping[str, object]) -> tuple[str, ...]:
    """What a merge has to say of the adapter; without its place, which a card must not hold."""
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(RESIDUAL_INITS):
        return (
            f"saved with init_lora_weights '{line(init)}': it and its merge belong on the residual "
            "base model that this initialisation made; to merge it for the plain base, save it "
            "with path_initial_model_for_weight_conversion",
        )
    return ()


def _text(config: Mapping[str, object], key: str) -> str | None:
    value = config.get(key)
    return without_secrets(value) if isinstance(value, str) else None


def _target_modules(config: Mapping[str, object]) -> tuple[str, ...] | str | None:
    """The selection as the config states it; None if it depends on more than this one key."""
    narrowed = any(config.get(key) for key in ("layers_to_transform", "exclude_modules"))
    targets = config.get("target_modules")
    if narrowed or targets is None:
        return None
    if isinstance(targets, list) and all(isinstance(target, str) for target in targets):
        return tuple(sorted(set(targets)))
    return targets if isinstance(targets, str) else None


def _modules_to_save(folder: Path, config: Mapping[str, object]) -> tuple[str, ...]:
    names = config.get("modules_to_save") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(
            f"modules_to_save is {names!r}",
            where=str(folder / CONFIG_FILE),
            expected="a list of module names",
        )
    if len(names) > MOST_WHOLE_MODULES:
        what = f"modules_to_save names {len(names)} modules"
        where = str(folder / CONFIG_FILE)
        raise InputError(what, where=where, expected=f"at most {MOST_WHOLE_MODULES}")
    return tuple(sorted(set(names)))


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
        if found is None:
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
    scales = Scales(folder / CONFIG_FILE, config, sorted(sides))
    return {name: _module(where, name, sides[name], scales) for name in sorted(sides)}


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


def _module(where: str, name: str, sides: Mapping[str, TensorSpec], scales: Scales) -> ModuleHeader:
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
        scale=scales.of(name, rank),
        A=A,
        B=B,
    )
