"""The base model: which one it is, the model in memory, and text as its tokens.

- `base`: what it is called, its identity, and a folder of it that loads fast; imports no torch;
- `package`: a base that comes as an installed Python package;
- `loaded`: the model in memory, adapters that come and go on it, logits only where they are needed;
- `encoding`: prompts and targets as token ids, one way for training, scoring and generating.

`Loaded`, `adopt`, `load_model` and `with_adapter` can be had from here, and import torch then.
"""

from __future__ import annotations


def __getattr__(name: str) -> object:
    if name not in ("Loaded", "adopt", "load_model", "with_adapter"):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from koinize.model import loaded

    found: object = getattr(loaded, name)
    return found
