"""What a checkpoint's files call the weights of a model: transformers renames many on loading."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.model.loading import without_weights
from koinize.model.parameters import parameters_by_stack

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def weight_names(base: Path, tensors: Iterable[str]) -> dict[str, str]:
    """The files' tensors by the names that they have in the model, as transformers maps them.

    For every class in which the library loads this base: its text alone, or with what it sees.
    The model is built from its configuration without any memory. A tensor that becomes a part of
    another one, such as an expert's, has no name. Empty where the library does not know the model.
    """
    stored, found = list(tensors), dict[str, str]()
    for model in _classes(base):
        for name, tensor in _renamed(model, stored).items():
            found.setdefault(name, tensor)
    return found


def names_in_model(base: Path, adapters: Sequence[Collection[str]]) -> list[dict[str, str]] | None:
    """By the names of layers in each adapter, those of the base's model, as transformers maps them.

    In the first class in which the library loads this base and which has all of these layers; None
    where there is no such class.
    """
    for model in _classes(base):
        layers = {name for name, _ in model.named_modules()}
        found = []
        for names in adapters:
            own = {f"{name}.weight": name for name in names if name not in layers}
            today = {own[old]: new for new, old in _renamed(model, own).items()}
            found.append({one: today.get(one, one).removesuffix(".weight") for one in names})
        complete = all(len(set(one.values())) == len(one) for one in found)
        if complete and all(layers.issuperset(one.values()) for one in found):
            return found
    return None


@dataclass(frozen=True, slots=True)
class Stored:
    """How files hold a parameter with a matrix for each expert.

    shape: the parameter's. turned: its matrices are inputs x outputs. split: a tensor of that shape
    to the parts that files have of it, by their names there; the device meta will do.
    """

    parameter: str
    shape: tuple[int, ...]
    turned: bool
    split: Callable[[Tensor], dict[str, Tensor]]


def stored_stacks(base: Path, tensors: Collection[str], named: Sequence[str]) -> dict[str, Stored]:
    """By the names of an adapter's stacks, how the files of a base hold the parameters.

    tensors: the names in the files. named: the adapter's `target_parameters`. What the files lack
    is left out, and all where the library does not know the model.
    """
    found: dict[str, Stored] = {}
    for model in _classes(base):
        for whole, parameter in parameters_by_stack(model, named).items():
            stored = _stored(model, parameter, tensors)
            if stored.split(model.get_parameter(parameter)).keys() <= set(tensors):
                found.setdefault(whole, stored)
    return found


def _stored(model: PreTrainedModel, parameter: str, tensors: Collection[str]) -> Stored:
    place = model.get_submodule(parameter.rpartition(".")[0])
    return Stored(
        parameter,
        tuple(model.get_parameter(parameter).shape),
        bool(getattr(place, "is_transposed", False)),
        partial(_as_saved, model, parameter, parameter in tensors),
    )


def _as_saved(
    model: PreTrainedModel, parameter: str, is_whole: bool, value: Tensor
) -> dict[str, Tensor]:
    """A parameter's value as files hold it: whole, or as transformers takes it apart on saving."""
    from transformers.core_model_loading import revert_weight_conversion

    if is_whole:
        return {parameter: value}
    parts: dict[str, Tensor] = revert_weight_conversion(model, {parameter: value})
    return parts


def _classes(base: Path) -> Iterator[PreTrainedModel]:
    for seeing in (False, True):
        with suppress(OSError, ValueError):  # the base has no such class, or not in this library
            yield without_weights(base, seeing=seeing)


def _renamed(model: PreTrainedModel, stored: Iterable[str]) -> dict[str, str]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    others = [one for one in transforms if not isinstance(one, WeightRenaming)]
    weights, found = model.state_dict(), {}
    for tensor in stored:
        name, becomes_a_part = rename_source_key(
            tensor, renamings, others, model.base_model_prefix, weights
        )
        if name in weights and not becomes_a_part:
            found[name] = tensor
    return found
