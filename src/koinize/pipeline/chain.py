"""The whole chain without weights: a program that `koinize.pipeline.dry_run` runs.

Adapters are put on a model of the base's shapes as training does, and written as headers of files
without numbers. Merges are planned of these as of any others, and the model is asked what scoring
and writing need of it. A question comes in as JSON, and the list of mistakes goes out.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinize.adapter import ModuleHeader, read_header
from koinize.adapter.experts import whole_name
from koinize.adapter.header import WEIGHTS_FILE
from koinize.adapter.names import is_expert, named_as
from koinize.engine.plan import plan_merge
from koinize.errors import InputError, each
from koinize.files import parse_json
from koinize.merge.recipe import MergeSettings
from koinize.model import quantized
from koinize.model.families import REMEDY
from koinize.model.loading import in_words, without_weights
from koinize.model.parameters import parameters_by_stack
from koinize.pipeline.dry_run import Fault, Merge, Question
from koinize.settings import LoraSpec
from koinize.store.typed import typed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from koinize.train.lora import Frame


@dataclass(frozen=True)
class _Base:
    """A base model without weights, under the name that its adapters will have for it."""

    model: PreTrainedModel
    name: str
    revision: str | None = None


def faults(question: Question) -> Iterator[InputError]:
    """What would fail, in the order in which it would; what depends on a mistake is not tried."""
    from koinize.train.recompute import layers_of

    try:
        base = _Base(_model(question), question.name)
        _refuse_parts(base)
        _refuse_cache(base, texts=question.texts)
        _refuse_dtype(base, question.adapter_dtype)
        if question.recomputed:
            layers_of(base.model)
        if question.in_4bit:
            quantized.refuse(base.model)
    except InputError as error:
        yield from each(error)
        return
    with tempfile.TemporaryDirectory() as work:
        folders = {key: Path(folder) for key, folder in question.given.items()}
        wrong: list[InputError] = []
        for key, settings in question.trained.items():
            try:
                folders[key] = Path(work) / key
                _write(
                    base, LoraSpec.model_validate(settings), folders[key], question.adapter_dtype
                )
            except InputError as error:
                wrong += each(error)
        for folder in map(Path, question.given.values()):
            wrong += _misfits(base, folder)
        if not wrong:
            for merge in question.merges:
                wrong += _unmergeable(merge, folders, work)
        yield from wrong


def _model(question: Question) -> PreTrainedModel:
    try:
        return without_weights(question.folder, question.dtype)
    except (OSError, ValueError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"'{question.name}' cannot be loaded as a causal language model: {said}",
            where="base.model",
            remedy=REMEDY,
        ) from error


def _refuse_parts(base: _Base) -> None:
    """Raise InputError for a model without the parts that training and scoring use."""
    from koinize.model.loaded import decoder_of

    try:
        with in_words():
            decoder, output = decoder_of(base.model), base.model.get_output_embeddings()
    except ValueError:
        decoder = output = None
    if decoder is None or output is None:
        raise InputError(
            f"'{base.name}' has no decoder with an output layer behind it",
            where="base.model",
            remedy=REMEDY,
        )


def _refuse_cache(base: _Base, *, texts: bool) -> None:
    """Raise InputError for a model that writes no texts, where that can be seen without numbers."""
    import torch

    from koinize.model.loaded import decoder_of, first_cache

    if not texts:
        return
    ids = torch.arange(1, 5, device="meta")[None]
    try:
        with in_words():
            cache = first_cache(decoder_of(base.model), ids)
    except (OSError, ValueError):
        return  # a model that looks at values as it goes: the first step that loads it will tell
    if cache is None:
        raise InputError(
            f"'{base.name}' has no cache that is carried from one token to the next, so that it "
            "cannot write texts",
            where="base.model",
            expected="another base, or tasks that choose among options",
            remedy=REMEDY,
        )


def _refuse_dtype(base: _Base, of_factors: str) -> None:
    from koinize.train.lora import refuse_dtype

    refuse_dtype(of_factors, base.model.dtype)


def _write(base: _Base, lora: LoraSpec, folder: Path, dtype: str) -> None:
    """The folder that a training would write, without its numbers. Raises InputError for targets
    that the base does not have.
    """
    from koinize.train.lora import frame_of, save_config

    frame = frame_of(base, lora)
    folder.mkdir()
    save_config(base.name, frame.config, folder)
    _write_header(frame, folder / WEIGHTS_FILE, dtype)


def _write_header(frame: Frame, path: Path, dtype: str) -> None:
    """A safetensors file whose tensors are a hole in it, which takes no place on a disk."""
    from koinize.train.lora import tensor_name

    tag, size = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}[dtype]
    entries, end = {}, 0
    for name, (rank, inputs, outputs) in frame.shapes.items():
        for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            start, end = end, end + size * shape[0] * shape[1]
            entries[tensor_name(name, side)] = {
                "dtype": tag, "shape": shape, "data_offsets": [start, end],
            }  # fmt: skip
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(file.tell() + end)


def _misfits(base: _Base, folder: Path) -> Iterator[InputError]:
    """Why an adapter from elsewhere cannot be put on the base, by its shapes; the first reason."""
    stored = read_header(folder)
    header = named_as(stored, (name for name, _ in base.model.named_modules()))
    stacks = parameters_by_stack(base.model, header.parameters)
    for name, module in header.modules.items():
        place = f"{name}.weight" if not module.experts else stacks.get(whole_name(name), "")
        if (module.experts or not is_expert(name)) and (why := _misfit(base.model, module, place)):
            yield InputError(
                why, where=str(folder), expected=f"an adapter of base model '{base.name}'"
            )
            return


def _misfit(model: PreTrainedModel, module: ModuleHeader, place: str) -> str:
    """Why a module cannot be on the parameter at this place; empty if it can."""
    name = module.name
    try:
        shape = tuple(model.get_parameter(place).shape) if place else None
    except AttributeError:
        shape = None
    if shape is None:
        return f"adapts '{name}', and the base has no such layer"
    adapted = (module.outputs, module.inputs)
    if len(shape) == 3 and shape[0] != module.experts:
        return f"adapts '{name}' of {module.experts} experts, and the base has {shape[0]}"
    if shape[-2:] in (adapted, adapted[::-1]):  # inputs x outputs in a Conv1D
        return ""
    return f"adapts '{name}' as {adapted[0]} x {adapted[1]}, and it is {list(shape)} in the base"


def _unmergeable(merge: Merge, folders: Mapping[str, Path], work: str) -> Iterator[InputError]:
    """Why a merge of such adapters would be refused."""
    settings = MergeSettings.model_validate(merge.settings)
    adapters = {language: folders[key] for language, key in merge.adapters.items()}
    try:
        plan_merge(adapters, settings, folders[merge.trunk] if merge.trunk else None)
    except InputError as error:
        for one in each(error):
            ours = one.where.startswith(work)  # a folder that nobody but us has seen
            where = f"merge '{merge.title}':" if ours or not one.where else one.where
            yield InputError(one.what, where=where, expected=one.expected, remedy=one.remedy)


def main() -> None:
    """Read a question, print the mistakes."""
    warnings.filterwarnings("ignore")
    question = typed(Question, parse_json(sys.stdin.read()))
    found: list[Any] = [
        Fault(what=one.what, where=one.where, expected=one.expected, remedy=one.remedy)
        for one in faults(question)
    ]
    print(json.dumps(found))  # noqa: T201 - to the process that asked


if __name__ == "__main__":
    main()
