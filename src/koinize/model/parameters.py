"""Which parameter of a model each stack of an adapter is of; PEFT's order of nesting says it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from koinize.adapter.experts import NESTED


def parameters_by_stack(model: nn.Module, named: Sequence[str]) -> dict[str, str]:
    """By the name that a stack has in a file, the name of its parameter in the model.

    named: the configuration's `target_parameters`, ends of names. The parameter that a module has
    first is the innermost: with two of them it is at `.base_layer`.
    """
    found = {}
    for place, module in model.named_modules():
        own = [f"{place}.{name}" for name, _ in module.named_parameters(recurse=False)]
        adapted = [one for one in own if any(f".{one}".endswith(f".{end}") for end in named)]
        for depth, parameter in enumerate(reversed(adapted)):
            found[place + NESTED * depth] = parameter
    return found
