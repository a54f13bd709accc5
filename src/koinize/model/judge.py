"""A model that judges texts: which one, and how texts pass through it.

It never trains and knows nothing of adapters. Nothing here imports torch before it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from koinize.errors import InputError
from koinize.files import LARGEST_TEXT, parse_json, read_bytes
from koinize.model.base import ModelSpec
from koinize.model.loading import BASE_CONFIG, load_folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PASS_TOKENS = 4096  # padded, in one forward pass
NO_LIMIT = 10**9  # what a tokenizer says that knows none is larger
LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
"""How configurations call the number of their layers."""


class JudgeSpec(ModelSpec):
    """The model of one metric, and what the metric takes from it."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "float32"
    layer: int | None = Field(
        default=None, ge=0, description="of bert-score: whose hidden states, 0 the embeddings"
    )
    false_alarm: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="of not-hallucinated: the share of right texts that it may call wrong, 0.05 "
        "when left out",
    )


def config_of(folder: Path) -> Mapping[str, Any]:
    """The model's configuration, that of its text part where it has several. Raises InputError."""
    path = folder / BASE_CONFIG
    try:
        found = parse_json(read_bytes(path, LARGEST_TEXT))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    if not isinstance(found, dict):
        raise InputError("is no configuration of a model", where=str(path))
    inner = found.get("text_config")
    return {**found, **inner} if isinstance(inner, dict) else found


def is_built_for(head: str, config: Mapping[str, Any]) -> bool:
    """Whether it was saved with a head of this kind, such as ForSequenceClassification.

    transformers would give any other model a random one.
    """
    built = config.get("architectures")
    return isinstance(built, list) and any(str(one).endswith(head) for one in built)


def layers_of(config: Mapping[str, Any]) -> int:
    """The number of layers; 0 where the configuration does not say."""
    found = (config.get(name) for name in LAYERS)
    return next((one for one in found if type(one) is int), 0)


@dataclass(frozen=True)
class Encoded:
    """A text, or a pair of them, as tokens. `special`: those that stand for no part of it."""

    ids: tuple[int, ...]
    types: tuple[int, ...]
    special: tuple[bool, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass
class Reader:
    """A judge in memory. `room` is the number of tokens that it can read at once; `cut` counts the
    texts that filled it, of which it may not have read the end.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    room: int
    cut: int = 0

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> list[Encoded]:
        """Texts, or pairs with `seconds`, cut to the room: of a pair the longer loses its end."""
        found = []
        for place, text in enumerate(texts):
            pair = [] if seconds is None else [seconds[place]]
            encoded = self.tokenizer(
                text,
                *pair,
                truncation="longest_first",
                max_length=self.room,
                return_special_tokens_mask=True,
                return_offsets_mapping=self.tokenizer.is_fast,
                return_overflowing_tokens=False,
            )
            found.append(_encoded(encoded))
        self.cut += sum(len(one.ids) >= self.room for one in found)
        return found

    def outputs(
        self,
        items: Sequence[Encoded],
        take: Callable[[Any], Tensor],
        **options: bool,
    ) -> list[Tensor]:
        """What `take` takes from the model's outputs, (batch, ...), by item, float32 on the CPU.

        Per token it is padded on the right.
        """
        import torch

        from koinize.model.encoding import buckets

        found: dict[int, Tensor] = {}
        # Without a token to pad with, a model cannot know where its text ends.
        budget = PASS_TOKENS if self.tokenizer.pad_token_id is not None else 1
        with torch.inference_mode():
            for batch in buckets(range(len(items)), lambda one: len(items[one].ids), budget):
                output = self.model(**self._inputs([items[one] for one in batch]), **options)
                taken = take(output).float().cpu()
                found.update(zip(batch, taken, strict=True))
        return [found[one] for one in range(len(items))]

    def _inputs(self, batch: Sequence[Encoded]) -> dict[str, Tensor]:
        from koinize.model.loaded import pad

        fill = self.tokenizer.pad_token_id or 0
        ids, mask = pad([one.ids for one in batch], fill, self.device)
        found = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            found["token_type_ids"], _ = pad([one.types for one in batch], 0, self.device)
        return found


def _encoded(found: Mapping[str, Any]) -> Encoded:
    ids = tuple(found["input_ids"])
    nothing = [0] * len(ids)
    return Encoded(
        ids,
        tuple(found.get("token_type_ids", nothing)),
        tuple(map(bool, found["special_tokens_mask"])),
        tuple(map(tuple, found.get("offset_mapping", [(0, 0)] * len(ids)))),
    )


def load_reader(folder: Path, spec: JudgeSpec, kind: str) -> Reader:
    """The model of a folder by a class of transformers, frozen. Raises InputError."""
    from koinize.model.loaded import default_device

    try:
        model, tokenizer = load_folder(folder, spec.dtype, kind)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot be loaded as {kind}: {error}",
            where=str(folder),
            expected="a folder with config.json, *.safetensors and a tokenizer",
        ) from error
    if getattr(model.config, "pad_token_id", None) is None:  # a decoder finds a text's end by it
        model.config.pad_token_id = tokenizer.pad_token_id
    device = default_device()
    model = model.to(device).eval().requires_grad_(False)
    return Reader(model, tokenizer, device, _room(model, tokenizer))


def _room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that the model has positions for, as far as it or its tokenizer says."""
    from torch import nn

    limits = [int(tokenizer.model_max_length), NO_LIMIT]
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits += [stated] if type(stated) is int else []
    limits += [
        _positions(module)
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    return min(one for one in limits if one > 0)


def _positions(table: nn.Embedding) -> int:
    """RoBERTa's relatives begin to count after the place that stands for padding."""
    before = 0 if table.padding_idx is None else table.padding_idx + 1
    return int(table.num_embeddings) - before
