"""What a checkpoint's files call the weights of a model: transformers renames many on loading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.model.loading import without_weights

if TYPE_CHECKING:
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
