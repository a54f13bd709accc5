"""Factors on their way into a file: pieces, digests, and shapes that are nearly none."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file

from koinize.adapter import AdapterWriter, Factors, ModuleShape, open_adapter, read_header, writer
from koinize.adapter.tensorfile import TensorWriter
from koinize.adapter.writer import NotFiniteError
from koinize.engine import merge_adapters
from koinize.merge.compose import merge_module
from koinize.merge.recipe import RECIPES, merge_settings
from tests.peft_folders import save

Q = "model.layers.0.q_proj"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of one row, so that a factor of a few entries has many."""
    monkeypatch.setattr(writer, "PIECE_ENTRIES", 1)


def write(tmp_path, factors):
    """One module's factors in a file of float32; the digest that the card would state."""
    outputs, rank = factors.B.shape
    shape = ModuleShape(Q, outputs, factors.A.shape[1], rank)
    like, stated = read_header(save(tmp_path / "like", 0)), {}

    def card(files):
        stated.update(files)
        return ""

    with AdapterWriter(tmp_path / "out", [shape]) as opened:
        opened.write(Q, factors)
        opened.finish([like], card=card)
    return stated[WEIGHTS]


def test_all_pieces_are_written_and_digested(tmp_path, small_pieces):
    B, A = torch.randn(7, 3), torch.randn(3, 5)
    digest = write(tmp_path, Factors(B=B.T.contiguous().T, A=A))  # B by columns, as merges have it
    path = tmp_path / "out" / WEIGHTS
    found = load_file(path)
    assert torch.equal(found[f"base_model.model.{Q}.lora_B.weight"], B)
    assert torch.equal(found[f"base_model.model.{Q}.lora_A.weight"], A)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e15])
@pytest.mark.parametrize("row", [0, 3, 6])
def test_every_piece_is_checked(tmp_path, small_pieces, value, row):
    """NaN is refused wherever it stands; so is 1e15, which times A's 2 is an entry of 2e15."""
    B, A = torch.zeros(7, 1), torch.full((1, 5), 2.0)
    B[row] = value
    with pytest.raises(NotFiniteError):
        write(tmp_path, Factors(B=B, A=A))
    assert not (tmp_path / "out").exists()


def test_a_tensor_has_the_bytes_of_its_shape(tmp_path):
    with (
        pytest.raises(ValueError, match="tensor 'x' lacks 4 bytes of its shape"),
        TensorWriter(tmp_path / "file", {"x": (2, 3)}, "float32") as opened,
    ):
        opened.write("x", (2, 3), [memoryview(bytes(20))])


@pytest.mark.parametrize("shape", [(12, 10), (10, 12), (1, 8), (8, 1), (1, 1)])
@pytest.mark.parametrize("recipe", RECIPES.names())
def test_a_merge_of_rank_1_is_written_as_it_is(tmp_path, recipe, shape):
    """A matrix of one column or one row has more than one stride that means the same."""
    folders = {
        name: save(tmp_path / name, seed, shapes={Q: shape}) for seed, name in enumerate("ab")
    }
    settings = merge_settings(recipe=recipe, rank=1)
    out = merge_adapters(folders, settings, out=tmp_path / "out").out
    updates = {name: open_adapter(folder).factors(Q) for name, folder in folders.items()}
    merged = merge_module(Q, updates, settings).factors
    with open_adapter(out) as adapter:
        found = adapter.factors(Q)
    assert torch.equal(found.B, merged.B)
    assert torch.equal(found.A, merged.A)
