"""A base model of a few thousand parameters with random weights, for tests and the tiny example.

Every byte is a token, so any language can be written; what the model says means nothing, but an
adapter can learn on it, and every step of the pipeline runs on it in seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<turn>")
HIDDEN, LAYERS, HEADS = 16, 2, 2


def write_tiny_base(folder: Path, seed: int = 0, *, family: str = "gemma3") -> None:
    """Writes config, safetensors and tokenizer to `folder`, byte for byte the same for a seed.

    `family` is 'gemma3' (sliding windows, tied embeddings) or 'llama'; no chat template.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # it is done before a bar could be read
    tiny_model(seed, family=family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, `<bos>` put first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        bos_token="<bos>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        extra_special_tokens=["<turn>"],
    )


def tiny_model(seed: int = 0, *, family: str = "gemma3", **settings: object) -> PreTrainedModel:
    """The model itself, in float32; `settings` override its configuration."""
    import torch
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        LlamaConfig,
        LlamaForCausalLM,
    )

    shape: dict[str, object] = {
        "vocab_size": len(SPECIAL_TOKENS) + 256,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        # Ten times the usual spread: a random model's answers then depend on what it reads.
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "llama":
            return LlamaForCausalLM(LlamaConfig(**{**shape, **settings})).eval()
        windows = {"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}
        return Gemma3ForCausalLM(Gemma3TextConfig(**{**shape, **windows, **settings})).eval()


if __name__ == "__main__":
    write_tiny_base(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
