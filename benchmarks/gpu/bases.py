"""Models with random weights, made where they are used, and rows of a known number of tokens."""

from __future__ import annotations

import random
from functools import lru_cache

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu.scale import Scale
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.loaded import Loaded, adopt
from koinize.model.quantized import asked_of_transformers, settle
from koinize.tasks import Example

OPTIONS = (" A", " B", " C")
OPTION_TOKENS = 2  # for a tokenizer of bytes


@lru_cache(maxsize=1)
def large_base(scale: Scale) -> Loaded:
    """A Llama of this size, frozen, its weights drawn on the device."""
    config = LlamaConfig(
        vocab_size=scale.vocabulary,
        hidden_size=scale.hidden,
        intermediate_size=scale.middle,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.heads,
        num_key_value_heads=scale.groups,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, scale.dtype))
    try:
        with torch.device(scale.device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    device = torch.device(scale.device)
    model = model.eval().requires_grad_(False)
    return adopt(model, tiny_tokenizer(), device, name="synthetic/llama-3.1-8b")


def turn_into_4_bit(base: Loaded) -> None:
    """Its linear layers become those that `training.load_in_4bit` has, where they lie."""
    from bitsandbytes.nn import Params4bit
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    asked = asked_of_transformers(base.dtype, base.device)["quantization_config"]
    named = base.model.named_modules()
    weights = {name: one.weight.data for name, one in named if type(one) is nn.Linear}
    del weights["lm_head"]
    replace_with_bnb_linear(base.model, ["lm_head"], asked)
    for name in list(weights):  # each goes as soon as it was read
        made = base.model.get_submodule(name)
        given = made.weight.__dict__
        made.weight = Params4bit(weights.pop(name), requires_grad=False, **given)
        made.to(base.device)
    settle(base.model)


def tiny_base(family: str, device: str) -> Loaded:
    """The model of the tiny example, a little larger, in float32."""
    model = tiny_model(0, family=family, hidden_size=64, intermediate_size=128, head_dim=32)
    model = model.to(device).requires_grad_(False)
    return adopt(model, tiny_tokenizer(), torch.device(device), name=f"tiny/{family}")


def texts(count: int, length: int, answer: int, language: str = "en") -> list[Example]:
    """Rows to write after: prompt and target are `length` tokens together, all alike."""
    draw = random.Random(f"{language} {length}")

    def letters(number: int) -> str:
        return "".join(draw.choices("abcdefghij ", k=number - 1)) + "x"

    # A tokenizer of bytes puts <bos> before the prompt, and training <eos> after the target.
    return [
        Example(f"row-{n}", language, letters(length - answer - 1), letters(answer - 1))
        for n in range(count)
    ]


def choices(count: int, length: int, language: str = "en") -> list[Example]:
    """Rows to choose in: from .6 to 1.4 times `length` tokens, and options of two tokens."""
    draw = random.Random(f"{language} {length} choices")

    def row(number: int) -> Example:
        size = draw.randint(int(0.6 * length), int(1.4 * length)) - 3
        gold = draw.randrange(len(OPTIONS))
        prompt = "".join(draw.choices("abcdefghij ", k=size - 1)) + ":"
        return Example(
            f"row-{number}", language, prompt, OPTIONS[gold], OPTIONS, ("A", "B", "C"), gold
        )

    return [row(number) for number in range(count)]


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def free_memory(device: str) -> None:
    """Give back what a failed attempt left behind."""
    import gc

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gigabytes(device: str) -> float:
    """The most memory that tensors have taken on the device since it was reset; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
