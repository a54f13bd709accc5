"""Overrides of a merge against the base's own modules, at plan and not only in the merge."""

from __future__ import annotations

from pathlib import Path

from koinize.adapter.tensorfile import read_tensor_specs
from koinize.merge.recipe import MergeSettings

WEIGHT = ".weight"
NEVER_MERGED = ("embed", "lm_head", "wte", "wpe")  # parts of names that no training here adapts


def refuse_contradictions(settings: MergeSettings, base: Path | None) -> None:
    """Raise InputError where two overrides give one module of the base two values of an option.

    Of a base that is not here yet (None) nothing is known; the merge will tell.
    """
    if not settings.overrides or base is None:
        return
    for file in sorted(base.glob("*.safetensors")):
        for name, spec in read_tensor_specs(file).items():
            is_linear = name.endswith(WEIGHT) and len(spec.shape) == 2
            if is_linear and not any(part in name for part in NEVER_MERGED):
                settings.of_module(name.removesuffix(WEIGHT))
