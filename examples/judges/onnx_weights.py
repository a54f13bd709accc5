"""Weights out of an ONNX file in which they have 4 or 8 bits, under the names that PyTorch has.

The exporter names a node by the module that it comes from, `/bert/encoder/layer.0/output/dense/
MatMul_Q4`, and leaves embeddings, norms and biases their names. So every weight has its module.
Read from the operators' specification: MatMulNBits and DynamicQuantizeLinear / MatMulInteger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from onnx import NodeProto

DEBERTA: Mapping[str, Any] = {
    "architectures": ["DebertaV2ForSequenceClassification"],
    "model_type": "deberta-v2",
    "vocab_size": 128100,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 384,
    "pad_token_id": 0,
    "id2label": {"0": "entailment", "1": "not entailment"},
    "label2id": {"entailment": 0, "not entailment": 1},
}
"""DeBERTa-v3-xsmall with two classes: the first is entailment, as its answers show."""

Array = np.ndarray[Any, np.dtype[Any]]
MIDDLE = 8  # what a 4-bit number is counted from where the file does not say


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every parameter of the model in float32. Raises ModuleNotFoundError without `onnx`."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    plain = {
        name: array
        for name, array in known.items()
        if name.endswith((".weight", ".bias")) and not name.startswith("onnx::")
    }
    found = plain | dict(_embeddings(known)) | dict(_products(graph.node, known))
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in found.items()}


def _embeddings(known: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    for name, array in known.items():
        if name.endswith(".weight_quantized") and "embeddings" in name:
            plain = name.removesuffix("_quantized")
            zero = known[f"{plain}_zero_point"].astype(np.float32)
            yield plain, (array.astype(np.float32) - zero) * known[f"{plain}_scale"]


def _products(
    nodes: Iterable[NodeProto], known: Mapping[str, Array]
) -> Iterator[tuple[str, Array]]:
    for node in nodes:
        if node.op_type == "MatMulNBits":
            yield _module(node.name), _of_blocks(node, known)
        elif node.op_type == "MatMulInteger":
            name = node.input[1].removesuffix("_quantized")
            weight = known[f"{name}_quantized"].astype(np.float32)
            weight = (weight - known[f"{name}_zero_point"].astype(np.float32)) * known[
                f"{name}_scale"
            ]
            yield _module(node.name), weight.T  # ONNX has inputs first


def _of_blocks(node: NodeProto, known: Mapping[str, Array]) -> Array:
    """(outputs, inputs) of blocks of 4-bit numbers, two to a byte, the first in its low half."""
    packed, scales, *zeros = (known[name] for name in node.input[1:])
    sizes = {one.name: one.i for one in node.attribute}
    if zeros or sizes["bits"] != 4:
        raise ValueError(f"{node.name} is packed in a way that is not known here")
    pairs = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.float32) - MIDDLE
    blocks = pairs.reshape(sizes["N"], -1, sizes["block_size"])
    whole: Array = (blocks * scales.reshape(sizes["N"], -1, 1)).reshape(sizes["N"], -1)
    return whole[:, : sizes["K"]]


def _module(node: str) -> str:
    """`/bert/encoder/layer.0/output/dense/MatMul_Q4` to the name of that module's weight."""
    return ".".join(node.strip("/").split("/")[:-1]) + ".weight"
