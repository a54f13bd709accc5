"""A stored adapter on a base model as plain factors, and the proof that the base stays the base.

A PEFT configuration may ask for much when it is loaded: to rewrite the base's weights (PiSSA,
OLoRA, CorDA), to import a module, to match regular expressions. Nothing of it is obeyed here. The
folder is read as merging reads it, and PEFT is told the modules, their ranks and their scales.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from koinize.adapter import AdapterHeader, ModuleHeader, read_header
from koinize.adapter.experts import whole_name
from koinize.adapter.names import is_expert, named_as
from koinize.adapter.scales import own_keys
from koinize.adapter.tensorfile import read_tensor_specs
from koinize.errors import StepError
from koinize.model.parameters import parameters_by_stack

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

ADAPTER = "default"


def put_on(model: PreTrainedModel, folder: Path | str) -> PeftModel:
    """The model with the adapter's factors beside its layers, in the layers' own dtype.

    Raises InputError for a folder that merging would refuse; whatever PEFT raises, a UserWarning
    for a tensor without its module among it, where the shapes are those of another base.
    """
    from peft import PeftModel

    stored = read_header(folder)
    header = named_as(stored, (name for name, _ in model.named_modules()))
    peft_model = PeftModel.from_pretrained(
        model,
        str(folder),
        config=plain_config(header, model),
        autocast_adapter_dtype=False,
        local_files_only=True,
        key_mapping=_renaming(header),
    )
    layers = peft_model.base_model.model
    for name, module in header.wholes.items():
        if not is_expert(name):
            layers.get_submodule(name).scaling[ADAPTER] = module.scale
    return peft_model


def _renaming(header: AdapterHeader) -> dict[str, str] | None:
    """Regular expressions for PEFT's `key_mapping`: the file's names to those of the model."""
    stored = {spec.start: name for name, spec in read_tensor_specs(header.weights).items()}
    found = {}
    for name, module in header.wholes.items():
        key = stored[module.A.start].removeprefix("base_model.model.").rpartition(".lora_A")[0]
        if key != name:
            found[rf"^{re.escape(key)}\.lora_"] = f"{name}.lora_"
    return found or None


def plain_config(header: AdapterHeader, model: nn.Module) -> LoraConfig:
    """What PEFT has to know to make room for the factors, and nothing that it could act on."""
    from peft import LoraConfig

    wholes = header.wholes
    if experts := [module for name, module in wholes.items() if is_expert(name)]:
        return _with_experts(header, experts)
    stacks = parameters_by_stack(model, header.parameters)
    parameters = {name: stacks[name] for name in wholes if name in stacks}
    linear = [name for name in wholes if name not in parameters]
    keys = {name: f"^{re.escape(one)}" for name, one in parameters.items()} | own_keys(linear)
    rank = max(module.rank for module in header.modules.values())
    others = {
        keys[whole_name(name)]: module.rank
        for name, module in header.modules.items()
        if module.rank != rank
    }
    return LoraConfig(
        r=rank,
        rank_pattern=others,
        target_modules=sorted(linear),
        target_parameters=sorted(parameters.values()) or None,
        modules_to_save=list(header.modules_to_save) or None,
        fan_in_fan_out=header.fan_in_fan_out,
        init_lora_weights=False,
        inference_mode=True,
    )


def _with_experts(header: AdapterHeader, experts: Sequence[ModuleHeader]) -> LoraConfig:
    """The same where layers are experts, which PEFT stacks: they have one rank and one scale.

    Raises ValueError where they have not.
    """
    from peft import LoraConfig

    kinds = {(module.rank, module.scale) for module in experts}
    if len(kinds) > 1:
        raise ValueError("its experts have more than one rank or scale, and PEFT stacks them")
    rank, scale = kinds.pop()
    others = {
        key: header.modules[name].rank
        for name, key in own_keys(header.modules).items()
        if not is_expert(name)
    }
    return LoraConfig(
        r=rank,
        lora_alpha=rank * scale,  # which PEFT divides by the rank
        rank_pattern=others,
        target_modules=sorted(header.modules),
        init_lora_weights=False,
        inference_mode=True,
    )


class Untouched:
    """The layers that adapters were put on, each with a checksum from before the first one."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}
        self.changed: list[str] = []

    def note(self, model: nn.Module, names: Iterable[str]) -> None:
        """Remember these layers' weights as they are. Raises StepError after a change."""
        self._refuse()
        fresh = [name for name in names if name not in self.sums]
        self.sums |= checksums(model, fresh)

    def check(self, model: nn.Module, names: Iterable[str]) -> None:
        """Raise StepError, now and from now on, where one of these layers has other weights."""
        found = checksums(model, names)
        self.changed += sorted(name for name in found if found[name] != self.sums[name])
        self._refuse()

    def _refuse(self) -> None:
        if self.changed:
            raise StepError(
                "the base model's own weights changed while an adapter was on it",
                where=self.changed[0],
                remedy="run again: nothing more is computed on it in this process",
            )


def checksums(model: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """The sums of the parameters' bits, as whole numbers modulo 2^64, by the layers' names.

    It takes what reading the weights once takes: a sum that costs more would be left out by
    somebody, and an accident, or a library that rewrites weights, does not aim at this one.
    """
    parts = {
        name: [_sum(parameter) for parameter in model.get_submodule(name).parameters()]
        for name in names
    }
    return {name: hash(tuple(map(int, sums))) for name, sums in parts.items()}


def _sum(parameter: Tensor) -> Tensor:
    data = parameter.detach().contiguous().reshape(-1).view(torch.uint8)
    data = data.clone() if data.storage_offset() % 8 else data
    words = len(data) // 8 * 8
    return data[:words].view(torch.int64).sum() + data[words:].sum()
