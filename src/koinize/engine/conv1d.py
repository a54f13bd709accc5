"""Which of a base model's weights are stored inputs x outputs, as transformers' Conv1D does.

PEFT asks the layer; a file holds no layers. An adapter's `fan_in_fan_out` does not tell either:
PEFT writes there what the last layer is that it adapts, and GPT-2's lm_head is a Linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from koinize.adapter import AdapterHeader
from koinize.engine.inspect import LAYER
from koinize.errors import InputError
from koinize.files import LARGEST_TEXT, parse_json, read_bytes

CONFIG_FILE = "config.json"
# The models of the transformers library that use Conv1D, and the names of these layers in all.
CONV1D_TYPES = frozenset(
    {"clvp", "clvp_decoder", "clvp_encoder", "decision_transformer", "gpt2", "imagegpt"}
    | {"openai-gpt"}
)
CONV1D_LAYERS = frozenset({"c_attn", "c_fc", "c_proj", "q_attn"})


def transposed_modules(
    header: AdapterHeader, base: Path, stored: Mapping[str, tuple[int, ...]]
) -> set[str]:
    """The modules that the base stores inputs x outputs; `stored` are its shapes by module.

    What the transformers library defines is known from the base's `model_type`. Else the shape
    tells, and for square weights the other modules', if adapter and shapes agree on one layout.
    Raises InputError where that leaves it open.
    """
    types = _library_types(base)
    if not types:
        return _by_shape(header, base, stored)
    if types & CONV1D_TYPES:
        return {module for module in stored if module.rpartition(".")[2] in CONV1D_LAYERS}
    return set()


def _library_types(base: Path) -> set[str]:
    """The `model_type` of a model and of its parts; none if unknown, or with code of its own."""
    try:
        config = parse_json(read_bytes(base / CONFIG_FILE, LARGEST_TEXT))
        own_code = isinstance(config, dict) and "auto_map" in config
        return set() if own_code else set(_model_types(config))
    except (OSError, ValueError):
        return set()


def _model_types(config: object) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(kind := config.get("model_type"), str):
            yield kind
        for part in config.values():
            yield from _model_types(part)


def _by_shape(header: AdapterHeader, base: Path, stored: Mapping[str, tuple[int, ...]]) -> set[str]:
    told: dict[str, bool] = {}
    for module, shape in stored.items():
        entry = header.modules[module]
        if entry.inputs != entry.outputs:
            told[module] = shape == (entry.inputs, entry.outputs)
    turned = header.fan_in_fan_out
    # A model's numbered layers are of one kind; what stands outside them may be of another. Only a
    # flag that is set needs a witness, because not every tool that writes one means it.
    witnesses = set(told.values()) or {False}
    known = witnesses == {turned} and all(LAYER.match(module) for module in stored)
    square = sorted(stored.keys() - told)
    if square and not known:
        raise InputError(
            f"does not tell whether '{square[0]}', which is square, is stored inputs x outputs",
            where=str(base / CONFIG_FILE),
            expected="the model_type of a model of the transformers library, without auto_map",
            remedy="merge the adapter into the base with PEFT",
        )
    return {module for module in stored if told.get(module, turned)}
