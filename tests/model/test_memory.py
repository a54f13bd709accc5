"""The memory of a training, by hand and as autograd keeps it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.loaded import adopt
from koinize.model.memory import Decoder, decoder_in, tokens_that_fit, training_memory
from koinize.settings import LoraSpec, TrainingSpec
from koinize.train.lora import injected

TINY = Decoder(
    hidden=8,
    middle=12,
    layers=1,
    heads=2,
    queries=8,
    keys=4,
    vocabulary=100,
    norms=2,
    norms_heads=False,
    modules={"model.layers.0.self_attn.q_proj": (8, 8), "model.layers.0.mlp.down_proj": (8, 12)},
    weights=1000,
    tokenizer_bytes=50,
)


def test_by_hand() -> None:
    """Of a token, two norms 2 x 4 x 9, sums of attention 8, attention and MLP 2 (16 + 8 + 36), what
    q_proj and down_proj read 2 (8 + 12), and between their factors 2 x 2 x 2: 248 bytes. On a CPU
    .4 of that comes to it, and 20 matrices of 4 x 12 bytes: 1307 in all.
    """
    lora = LoraSpec(r=2)
    assert TINY.factors(lora) == 2 * (16 + 20)
    assert TINY.kept(lora, 2) == 72 + 8 + 120 + 40 + 8
    asked = {"dtype": "bfloat16", "pass_tokens": 10, "target_tokens": 3}
    found = training_memory(TINY, lora, TrainingSpec(), **asked, on_cpu=False)
    assert found is not None
    assert (found.base, found.adapters, found.kept) == (2000, 18 * 72, 2480)
    assert (found.logits, found.process) == (14 * 3 * 100, 0)
    assert found.of_workers(2) == 2 * found.total
    here = training_memory(TINY, lora, TrainingSpec(), **asked)
    assert here is not None
    assert (here.kept, here.process) == (13072, 420_000_000 + 500)
    assert here.of_workers(3) == 3 * here.total - 2 * 2000
    assert training_memory(TINY, replace_dropout(lora), TrainingSpec(), **asked) is None
    # Run again: the input of its one layer, 2 x 8, comes to what that layer keeps.
    again = training_memory(TINY, lora, TrainingSpec(), **asked, on_cpu=False, recomputed=True)
    assert again is not None
    assert again.kept == 2480 + 160
    # Of the ten of a model of ten layers: their inputs, and what one of them keeps.
    modules = {
        name.replace(".0.", f".{layer}."): shape
        for layer in range(10)
        for name, shape in TINY.modules.items()
    }
    ten = replace(TINY, layers=10, modules=modules)
    assert ten.kept(lora, 2) == 2480
    assert ten.kept(lora, 2, recomputed=True) == 10 * 16 + 248
    # In 4 bit: 160 of the 1,000 weights are in layers, 64 of each q_proj's and 96 of down_proj's,
    # which has the largest matrix; of a weight 4 bit, 1/64 byte and 1/4096 byte of scales.
    four = TrainingSpec(load_in_4bit=True)
    less = training_memory(TINY, lora, four, **asked, on_cpu=False)
    assert less is not None
    assert less.base == 2 * 840 + round(160 * (0.5 + 1 / 64 + 1 / 4096)) + 2 * 96
    assert replace(less, base=found.base) == found
    assert not training_memory(TINY, lora, four, **asked).base_is_shared  # type: ignore[union-attr]
    only = LoraSpec(r=2, targets=("q_proj",))
    assert TINY.kept(only, 2) == 248 - 24 - 4


@pytest.mark.parametrize(
    ("adapters", "full", "tokens", "less"),
    [
        # The base 2 x 1,000, of 72 factors 18 bytes each, of a token 248 and 14 x 100 for logits.
        (1, 2000 + 18 * 72 + 1648 * 8192, 8192, 4096),
        (1, 2000 + 18 * 72 + 1648 * 4096, 4096, 2048),
        (1, 2000 + 18 * 72 + 1648 * 2048, 2048, 1024),
        (1, 2000 + 18 * 72 + 1648 * 1024, 1024, 1024),  # even where that does not fit
        # Two that share a pass: of each factor one more copy of two bytes, and twice the tokens.
        (2, 2000 + 2 * 20 * 72 + 2 * 1648 * 2048, 2048, 1024),
    ],
)
def test_a_gpu_gets_as_many_tokens_as_fit_into_nine_tenths(
    adapters: int, full: int, tokens: int, less: int
) -> None:
    lora, training = LoraSpec(r=2), TrainingSpec()
    enough = math.ceil(full / 0.9)
    for memory, expected in ((enough, tokens), (enough - 2, less)):
        asked = {"dtype": "bfloat16", "gpu_bytes": memory, "adapters": adapters}
        assert tokens_that_fit(TINY, lora, training, **asked) == expected
        assert tokens_that_fit(TINY, replace_dropout(lora), training, **asked) is None


def replace_dropout(lora: LoraSpec) -> LoraSpec:
    return lora.model_copy(update={"dropout": 0.1})


@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_it_is_what_autograd_keeps(tmp_path: Path, family: str) -> None:
    """In float32, where no product has a copy of a factor; what is no parameter, and each once."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    model = tiny_model(family=family, num_attention_heads=4, **sizes).requires_grad_(False)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    decoder, lora = decoder_in(tmp_path), LoraSpec(r=4)
    assert decoder is not None
    assert decoder.weights == sum(one.numel() for one in model.parameters())
    loaded = adopt(model, tiny_tokenizer(), torch.device("cpu"), name="tiny")
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        injected(loaded, lora, TrainingSpec(), None),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        own = {one.untyped_storage().data_ptr() for one in model.parameters()}
        loaded.backbone(input_ids=torch.ones(4, 64, dtype=torch.long), use_cache=False)
    found = sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in own)
    assert 256 * decoder.kept(lora, 4) == pytest.approx(found, rel=0.1)


def test_nothing_is_said_of_what_is_not_known(tmp_path: Path) -> None:
    assert decoder_in(tmp_path) is None
    model = tiny_model(family="llama")
    model.save_pretrained(tmp_path)
    assert decoder_in(tmp_path) is None  # without a tokenizer
    tiny_tokenizer().save_pretrained(tmp_path)
    assert decoder_in(tmp_path) is not None
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong in ({"model_type": "mamba"}, {"hidden_size": None}, {"num_attention_heads": 0}):
        (tmp_path / "config.json").write_text(json.dumps(config | wrong))
        assert decoder_in(tmp_path) is None
