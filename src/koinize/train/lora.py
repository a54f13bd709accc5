"""LoRA on a base: PEFT puts the layers in, the first values are our own, and a folder comes out."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from koinize.adapter import AdapterHeader, open_adapter, read_header
from koinize.adapter.config import CONFIG_FILE
from koinize.adapter.header import WEIGHTS_FILE
from koinize.digest import digest
from koinize.errors import InputError
from koinize.model.loaded import Loaded
from koinize.model.quantized import is_quantized
from koinize.model.stacked import stackable
from koinize.settings import LoraSpec, TrainingSpec
from koinize.train.targets import bare_parameters, linear_targets

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import PreTrainedModel


class Base(Protocol):
    """What of a base model decides how its adapters look; it needs no weights."""

    @property
    def model(self) -> PreTrainedModel:
        """The model, which may lie on the device meta."""

    @property
    def name(self) -> str:
        """What its adapters call it."""

    @property
    def revision(self) -> str | None:
        """And its revision."""


Pair = tuple[Tensor, Tensor]
"""The factors A (rank, inputs) and B (outputs, rank) of one layer, as they are stored."""


@contextmanager
def injected(
    loaded: Loaded, lora: LoraSpec, training: TrainingSpec, start: Path | None
) -> Iterator[PeftModel]:
    """The base with LoRA layers, fresh or as in `start`, and without them again afterwards."""
    from peft.helpers import disable_input_dtype_casting

    refuse_dtype(training.adapter_dtype, loaded.dtype)
    with _empty(loaded, lora) as peft_model:
        layers = layers_of(peft_model)
        scales = {name: one.scaling["default"] for name, one in layers.items()}
        shapes = {name: _shape(one) for name, one in layers.items()}
        for name, (A, B) in first_factors(shapes, scales, lora, start):
            module = layers[name]
            module.train(lora.dropout > 0)
            with torch.no_grad():
                module.lora_A["default"].weight.copy_(A)
                module.lora_B["default"].weight.copy_(B)
            if training.adapter_dtype == "bfloat16":
                module.to(torch.bfloat16)
        with (
            disable_input_dtype_casting(peft_model, active=loaded.dtype != torch.float32),
            torch.random.fork_rng(),
        ):
            torch.manual_seed(training.seed)  # only dropout draws from it
            yield peft_model


def refuse_dtype(of_factors: str, of_base: torch.dtype) -> None:
    """Raise InputError for factors of fewer bits than the base."""
    if of_factors == "bfloat16" and of_base == torch.float32:
        raise InputError(
            "bfloat16 factors do not go with a float32 base",
            where="training.adapter_dtype",
            remedy="use float32, or a base in bfloat16",
        )


@contextmanager
def _empty(base: Base, lora: LoraSpec) -> Iterator[PeftModel]:
    """The base with LoRA layers as PEFT makes them, and without them again afterwards."""
    from peft import LoraConfig, get_peft_model

    parameters = bare_parameters(base.model, lora)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        use_rslora=lora.rslora,
        lora_dropout=lora.dropout,
        target_modules=linear_targets(base.model, lora),
        target_parameters=parameters or None,
        task_type="CAUSAL_LM",
        revision=base.revision,
    )
    try:
        peft_model = get_peft_model(base.model, config)
    except ValueError as error:
        raise InputError(
            f"no LoRA layers fit base model '{base.name}': {error}",
            where="lora.targets",
            remedy="use 'all-linear', or names of the model's linear layers",
        ) from error
    try:
        _refuse_other_layers(peft_model)
        yield peft_model
    finally:
        peft_model.unload()


def _refuse_other_layers(peft_model: PeftModel) -> None:
    """PEFT adapts embeddings and convolutions as well, which no merge and no start can read."""
    for name, layer in layers_of(peft_model).items():
        if "default" not in layer.lora_A or layer.lora_A["default"].weight.dim() != 2:
            raise InputError(
                f"name the module '{name}', which is no linear layer",
                where="lora.targets",
                remedy="use 'all-linear', or names of the model's linear layers",
            )


@dataclass(frozen=True, slots=True)
class Frame:
    """What PEFT makes of a LoraSpec on a base, without its tensors.

    `shapes` are (rank, inputs, outputs) by module name; `linear` says whether every module is a
    linear layer of the backbone, whose inputs are the sequences' hidden states.
    """

    config: LoraConfig
    shapes: Mapping[str, tuple[int, int, int]]
    scale: float
    linear: bool


def frame_of(base: Base, lora: LoraSpec) -> Frame:
    """Raises InputError for targets that the base does not have; the base is left as it was."""
    from transformers.pytorch_utils import Conv1D

    with _empty(base, lora) as peft_model:
        layers = layers_of(peft_model)
        adapted = [one.get_base_layer() for one in layers.values()]
        kinds = {type(one) for one in adapted if not is_quantized(one)}
        output = base.model.get_output_embeddings()
        return Frame(
            config=copy.deepcopy(peft_model.peft_config["default"]),
            shapes={name: _shape(one) for name, one in layers.items()},
            scale=float(next(iter(layers.values())).scaling["default"]),
            linear=kinds <= {nn.Linear, Conv1D} and output not in layers.values(),
        )


class Frames:
    """Frames by shape of adapter, each made once."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.known: dict[LoraSpec, Frame | None] = {}

    def of(self, lora: LoraSpec, training: TrainingSpec) -> Frame | None:
        """None for a training that has to be alone. Raises InputError for unusable targets."""
        if lora.dropout > 0 or training.adapter_dtype != "float32":
            return None
        shape = lora.model_copy(update={"seed": 0})
        if shape not in self.known:
            frame = frame_of(self.loaded, shape)
            self.known[shape] = frame if stackable(self.loaded, frame.shapes) else None
        return self.known[shape]


def _shape(layer: LoraLayer) -> tuple[int, int, int]:
    """(rank, inputs, outputs)"""
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return A.shape[0], A.shape[1], B.shape[0]


def first_factors(
    shapes: Mapping[str, tuple[int, int, int]],
    scales: Mapping[str, float],
    lora: LoraSpec,
    start: Path | None,
) -> Iterator[tuple[str, Pair]]:
    """The factors that a training begins with, module by module: fresh, or those of `start`.

    Raises InputError, before the first module, for a start of other modules, ranks or scales.
    """
    if start is None:
        return _fresh(shapes, lora.seed)
    header = read_header(start)
    found = {name: (one.rank, one.scale) for name, one in header.wholes.items()}
    wanted = {name: (shapes[name][0], scales[name]) for name in shapes}
    if found != wanted:
        differing = min(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))
        raise InputError(
            f"has another shape than lora says, first at module '{differing}'",
            where=str(start),
            expected="the same modules, ranks and scales",
            remedy="train from the base instead",
        )
    return _stored(shapes, header)


def _fresh(shapes: Mapping[str, tuple[int, int, int]], seed: int) -> Iterator[tuple[str, Pair]]:
    """LoRA's usual start: B = 0 and A uniform in +-1/sqrt(inputs).

    PEFT draws A in the order of the modules from one global generator; here a module's A depends
    on (seed, name) alone, so other targets, ranks of other modules or other code change nothing.
    """
    for name, (rank, inputs, outputs) in shapes.items():
        generator = torch.Generator().manual_seed(int(digest([seed, name])[:15], 16))
        uniform = torch.rand((rank, inputs), generator=generator) * 2 - 1
        yield name, (uniform / math.sqrt(inputs), torch.zeros(outputs, rank))


def _stored(modules: Iterable[str], header: AdapterHeader) -> Iterator[tuple[str, Pair]]:
    with open_adapter(header) as adapter:
        for name in modules:
            yield name, adapter.stored(name)


def layers_of(peft_model: PeftModel) -> dict[str, LoraLayer]:
    """The LoRA layers by the names of the modules that they adapt."""
    from peft.tuners.lora import LoraLayer

    named = peft_model.base_model.model.named_modules()
    return {name: module for name, module in named if isinstance(module, LoraLayer)}


def tensor_name(module: str, side: str) -> str:
    """What PEFT calls a factor in an adapter's file."""
    return f"base_model.model.{module}.lora_{side}.weight"


def save(loaded: Loaded, config: LoraConfig, factors: Mapping[str, Pair], out: Path) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, byte for byte reproducible, as
    PEFT's save_pretrained does.
    """
    from safetensors.torch import save_file

    save_config(loaded.name, config, out)
    tensors = {
        tensor_name(name, side): factor.detach().cpu().contiguous()
        for name, pair in factors.items()
        for side, factor in zip("AB", pair, strict=True)
    }
    save_file(tensors, out / WEIGHTS_FILE, metadata={"format": "pt"})


def save_config(base: str, config: LoraConfig, out: Path) -> None:
    """Writes adapter_config.json for a base of this name."""
    config = copy.deepcopy(config)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(out))
    path = out / CONFIG_FILE
    settings = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(settings["target_modules"], list):  # from a set: its order changes between runs
        settings["target_modules"].sort()
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
