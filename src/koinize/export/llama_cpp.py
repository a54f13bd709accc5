"""An adapter in llama.cpp's own format, GGUF, with the scale that it was trained with.

llama.cpp adds `alpha / r * B A`, with one alpha for all modules and r from the tensors' shapes, and
knows nothing of rsLoRA: what its own converter writes of such an adapter is sqrt(r) times too weak.
Here alpha is what makes `alpha / r` the adapter's own scale; where modules have several scales, the
rest goes into their B.

Names are those of the package `gguf`. Of llama's family, the rows of queries and keys stand in
another order, since llama.cpp rotates neighbours where transformers rotates halves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinize.adapter import AdapterHeader, open_adapter
from koinize.adapter.experts import is_part
from koinize.errors import InputError
from koinize.files import LARGEST_TEXT, parse_json, read_bytes

if TYPE_CHECKING:
    import numpy as np
    import torch

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
}
"""What llama.cpp calls the models whose linear layers it keeps as they are, but for the order of
rows below."""

ROTATED = {"llama": {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}}
"""By architecture, the layers whose rows are in another order, and what counts their heads."""

HEAD = "lm_head"


@dataclass(frozen=True)
class Written:
    """`alpha` stands in the file; `folded` modules have a part of their scale in B."""

    alpha: float
    modules: int
    folded: int


def write_gguf(header: AdapterHeader, base: Path, path: Path) -> Written:
    """Write the adapter; each tensor keeps its dtype, but float32 where its scale is folded in.

    Raises InputError for a base that is not known, for what llama.cpp has no place for, and where
    the package gguf is missing.
    """
    gguf = _gguf()
    config = config_of(base)
    architecture = _architecture(config, base)
    names = dict(_names(gguf, header, architecture, config))
    products = {name: _single(one.scale * one.rank) for name, one in header.modules.items()}
    alpha = Counter(products.values()).most_common(1)[0][0]
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    with open_adapter(header) as adapter:
        for module, name in names.items():
            A, B = adapter.stored(module)
            B = B * (products[module] / alpha)
            B = _turned(B, module, architecture, config)
            exact = products[module] == alpha
            entry = header.modules[module]
            _add(gguf, writer, f"{name}.weight.lora_a", A, entry.A.dtype)
            _add(gguf, writer, f"{name}.weight.lora_b", B, entry.B.dtype if exact else "F32")
        adapter.refuse_changes()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Written(alpha, len(names), sum(one != alpha for one in products.values()))


def _single(value: float) -> float:
    """The value as the file has it: in float32, in which 16 / 7 * 7 is 16."""
    import numpy as np

    return float(np.float32(value))


def _gguf() -> Any:  # noqa: ANN401 - a module
    try:
        import gguf
    except ImportError:
        raise InputError(
            "writing GGUF needs the package 'gguf'", remedy="pip install 'koinize[gguf]'"
        ) from None
    return gguf


def config_of(base: Path) -> dict[str, Any]:
    """The configuration in a base model's folder. Raises InputError."""
    path = base / "config.json"
    try:
        found = parse_json(read_bytes(path, LARGEST_TEXT))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InputError("is no configuration of a model", where=str(path))
    return found


def _architecture(config: Mapping[str, Any], base: Path) -> str:
    stated = config.get("architectures")
    name = stated[0] if isinstance(stated, list) and stated else ""
    if name not in ARCHITECTURES:
        raise InputError(
            f"is a model of the class '{name}', whose layers koinize cannot name in GGUF",
            where=str(base),
            expected=f"one of {', '.join(ARCHITECTURES)}",
            remedy="export with --to fused, and convert that model with llama.cpp's "
            "convert_hf_to_gguf.py",
        )
    return ARCHITECTURES[name]


def _names(
    gguf: Any,  # noqa: ANN401 - a module
    header: AdapterHeader,
    architecture: str,
    config: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
    """(module, its name in GGUF) of all modules. Raises InputError for one that has none."""
    number = {name: one for one, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    known = gguf.get_tensor_name_map(number, int(config["num_hidden_layers"]))
    for name in header.modules:
        found = None if is_part(name) else known.get_name(name)
        if found is None or (name == HEAD and _is_tied(config, architecture)):
            raise InputError(
                f"changes '{name}', for which llama.cpp has no place in a model of this kind",
                where=str(header.folder),
                remedy="export with --to fused, and convert that model with llama.cpp's "
                "convert_hf_to_gguf.py",
            )
        yield name, found


def _is_tied(config: Mapping[str, Any], architecture: str) -> bool:
    """Whether the output layer is the embedding, which llama.cpp then has alone."""
    return bool(config.get("tie_word_embeddings", architecture.startswith("gemma")))


def _turned(
    B: torch.Tensor, module: str, architecture: str, config: Mapping[str, Any]
) -> torch.Tensor:
    """The rows of a layer (outputs x rank) in llama.cpp's order."""
    kind = ROTATED.get(architecture, {}).get(module.rpartition(".")[2])
    if kind is None:
        return B
    heads = int(config.get(kind) or config["num_attention_heads"])
    outputs, rank = B.shape
    halves = B.reshape(heads, 2, outputs // heads // 2, rank)
    return halves.transpose(1, 2).reshape(outputs, rank)


def _add(gguf: Any, writer: Any, name: str, tensor: torch.Tensor, dtype: str) -> None:  # noqa: ANN401
    kind = gguf.GGMLQuantizationType[dtype]
    writer.add_tensor(name, _bytes(tensor, dtype), raw_dtype=kind)


def _bytes(tensor: torch.Tensor, dtype: str) -> np.ndarray[Any, Any]:
    """The tensor in its dtype: bfloat16, which numpy does not have, as its bytes."""
    import torch

    if dtype == "BF16":
        return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
    return tensor.to(torch.float16 if dtype == "F16" else torch.float32).contiguous().numpy()
