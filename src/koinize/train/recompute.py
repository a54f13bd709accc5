"""Gradient checkpointing: of each layer its input is kept, and on the way back it is run again.

Takes memory for what one layer computes instead of all of them, and a second forward pass (Chen et
al., 2016, arXiv 1604.06174). What is computed twice is the same both times, dropout included, so
that the adapter comes to the same bytes where the device's products do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from koinize.errors import InputError


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers that are run again, each from its input: transformers says which they may be.

    Raises InputError for a model without such layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    found = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    if not found:
        raise InputError(
            "this base has no layers that could be run again on the way back",
            where="machine.gradient_checkpointing",
            remedy="take it out; lower training.batch_tokens where memory is short",
        )
    return found


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """While open, backward passes run the layers of a model again. InputError as `layers_of`.

    The model's own switch wants the layers in training mode, which turns on their dropout; here
    they stay as they are.
    """
    with ExitStack() as stack:
        for layer in layers_of(model):
            stack.callback(delattr, layer, "forward")
            layer.forward = partial(_again, layer.forward)
        yield


def _again(forward: Callable[..., object], *args: object, **named: object) -> object:
    if not torch.is_grad_enabled():  # as for a dev loss
        return forward(*args, **named)
    return checkpoint(partial(forward, **named), *args, use_reentrant=False)
