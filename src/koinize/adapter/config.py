"""What `adapter_config.json` says, and what in it would make a merge wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from koinize.errors import InputError
from koinize.files import parse_json
from koinize.shown import line, without_secrets

CONFIG_FILE = "adapter_config.json"

# Keys that change what the adapter computes, in words for the message.
REFUSED = {
    "use_dora": "DoRA rescales the base weights' columns, which no sum of B A can express",
    "lora_bias": "a bias on B is no part of B A",
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
    "rank_pattern", "revision", "runtime_config", "target_modules", "target_parameters",
    "task_type", "unsloth_fixed", "use_rslora", "velora_config",
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

MOST_WHOLE_MODULES = 100
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
LONGEST_TEXT = 4096  # of a base model's name, which may be a path


def parse_config(path: Path, content: bytes) -> dict[str, object]:
    """The configuration. Raises InputError, about `path`, for what no merge could honour."""
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
        if len(text := text_of(config, key) or "") > LONGEST_TEXT:
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


def warnings_of(config: Mapping[str, object]) -> tuple[str, ...]:
    """What a merge has to say of the adapter; without its place, which a card must not hold."""
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(RESIDUAL_INITS):
        return (
            f"saved with init_lora_weights '{line(init)}': it and its merge belong on the residual "
            "base model that this initialisation made; to merge it for the plain base, save it "
            "with path_initial_model_for_weight_conversion",
        )
    return ()


def text_of(config: Mapping[str, object], key: str) -> str | None:
    """A text of the configuration, without what is secret in it; None for anything else."""
    value = config.get(key)
    return without_secrets(value) if isinstance(value, str) else None


def target_modules_of(config: Mapping[str, object]) -> tuple[str, ...] | str | None:
    """The selection as the config states it; None if it depends on more than this one key."""
    narrowed = any(config.get(key) for key in ("layers_to_transform", "exclude_modules"))
    targets = config.get("target_modules")
    if narrowed or targets is None:
        return None
    if isinstance(targets, list) and all(isinstance(target, str) for target in targets):
        return tuple(sorted(set(targets)))
    return targets if isinstance(targets, str) else None


def modules_to_save_of(folder: Path, config: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the whole modules that were saved, sorted. Raises InputError."""
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
