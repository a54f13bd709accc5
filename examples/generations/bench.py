"""The base with one set of LoRA layers whose factors are changed in place, and texts encoded once.

Putting an adapter on the base with PEFT builds every layer anew, which takes longer than scoring a
split on a GPU; a study scores hundreds of adapters, most of them weighted sums of a few. So the
layers are made once, of the largest rank that occurs, and factors are copied into them: a sum of
adapters is their factors side by side, exact, and what is left of the rank is zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from koinize.adapter import read_header
from koinize.model.encoding import Encoder, Tokens
from koinize.model.loaded import Loaded
from koinize.settings import LoraSpec

Factors = dict[str, tuple[Tensor, Tensor]]
"""Module -> (A rank x inputs, scale x B outputs x rank), float32."""
Put = Callable[[Sequence[tuple[Factors, float]]], None]


class RememberingEncoder(Encoder):
    """An encoder that tokenizes no text twice."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.tokenizer, tuple(encoder.end_tokens))
        self.known: dict[object, Tokens] = {}

    def encode(self, prompt: str, targets: Sequence[str], **settings: object) -> Tokens:  # type: ignore[override]
        """As `Encoder.encode`."""
        said = sorted((name, value) for name, value in settings.items() if name != "where")
        key = (prompt, tuple(targets), tuple(said))
        if key not in self.known:
            self.known[key] = super().encode(prompt, targets, **settings)  # type: ignore[arg-type]
        return self.known[key]


def remembering(loaded: Loaded) -> Loaded:
    """The same model, with an encoder that remembers."""
    return replace(loaded, encoder=RememberingEncoder(loaded.encoder))


def read_factors(folder: Path, device: torch.device) -> Factors:
    """The factors of a PEFT folder, with the scale in B."""
    from safetensors.torch import load_file

    header = read_header(folder)
    tensors = load_file(header.weights, device=str(device))
    found = {}
    for name, module in header.modules.items():
        A, B = (tensors[f"base_model.model.{name}.lora_{factor}.weight"].float() for factor in "AB")
        found[name] = (A, module.scale * B)
    return found


@contextmanager
def layers_of_rank(loaded: Loaded, lora: LoraSpec, rank: int) -> Iterator[Put]:
    """LoRA layers of this rank on the base for a while; yields what puts a weighted sum into them.

    The sum's ranks may add up to `rank` at most.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    targets = lora.targets if lora.targets == "all-linear" else list(lora.targets)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(loaded.model, config, autocast_adapter_dtype=False).eval()
    named = model.base_model.model.named_modules()
    layers = {name: module for name, module in named if isinstance(module, LoraLayer)}

    @torch.no_grad()
    def put(parts: Sequence[tuple[Factors, float]]) -> None:
        for name, layer in layers.items():
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            A.zero_(), B.zero_()
            at = 0
            for factors, weight in parts:
                if name in factors:
                    own_A, own_B = factors[name]
                    end = at + len(own_A)
                    A[at:end] = own_A
                    B[:, at:end] = weight * own_B
                    at = end

    try:
        yield put
    finally:
        model.unload()


def rank_of(sums: Sequence[Mapping[str, float]], rank: int) -> int:
    """The rank that the longest of these sums of adapters of one rank takes."""
    return rank * max(map(len, sums))
