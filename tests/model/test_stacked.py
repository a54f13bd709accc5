"""Where factors lie in an adapter's row, and which layers may share a pass."""

from __future__ import annotations

import torch

from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.loaded import adopt
from koinize.model.stacked import Layout, stackable


def test_the_views_fill_a_row_and_do_not_overlap():
    layout = Layout([{"q": (2, 5, 7), "v": (1, 5, 3)}, {"q": (1, 5, 7), "down": (4, 11, 5)}])
    assert layout.shapes == {"q": (2, 5, 7), "v": (1, 5, 3), "down": (4, 11, 5)}
    # A: 2 x 5 + 1 x 5 + 4 x 11 numbers, B: 7 x 2 + 3 x 1 + 5 x 4.
    assert (layout.A_width, layout.width) == (59, 96)
    rows = torch.zeros(3, layout.width)
    for A, B in layout.views(rows).values():
        A += 1
        B += 1
    assert torch.equal(rows, torch.ones(3, 96))
    A, B = layout.views(torch.arange(2 * 96).view(2, 96))["down"]
    assert (A.shape, B.shape) == ((2, 4, 11), (2, 5, 4))
    assert (int(A[1, 0, 0]), int(B[1, 4, 3])) == (96 + 15, 96 + 95)


def test_the_output_layer_and_layers_that_see_other_rows_are_not_stackable():
    model = tiny_model(1, family="llama")
    base = adopt(model, tiny_tokenizer(), torch.device("cpu"), name="tiny")
    names = [f"model.layers.{layer}.mlp.down_proj" for layer in range(2)]
    assert stackable(base, names)
    assert not stackable(base, [*names, "lm_head"])
    # As an expert does, this layer reads only some of the tokens.
    mlp = model.get_submodule("model.layers.1.mlp")
    mlp.forward = lambda x: torch.nn.functional.pad(
        mlp.down_proj(mlp.up_proj(x[:, :3])), (0, 0, 0, 2)
    )
    assert not stackable(base, names)
    assert stackable(base, names[:1])
