"""Families of models that are known not to go the whole way; said before anything is trained.

docs/families.md has what was tried on each, and `benchmarks/families.py` tries it again.
"""

from __future__ import annotations

from pathlib import Path

from koinize.errors import InputError
from koinize.files import parse_json, read_bytes

# By `model_type`: what is in the way of training and scoring.
REFUSED = {
    "recurrent_gemma": "it changes its logits in a way that koinize does not know",
}
# Those that give no cache, or one that is not handed on under the usual name.
NO_TEXTS = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv"})
# Those whose fused kernels bypass the layer out_proj, so that PEFT refuses to adapt it.
MAMBA = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
REMEDY = "choose another base model; docs/families.md lists what was tried"


def refuse_family(base: str, folder: Path | None, *, texts: bool) -> None:
    """Raise InputError for a base whose family cannot do it; without a folder it may be any.

    base: what it is called. texts: whether texts are to be written.
    """
    kind = _model_type(folder)
    if kind in REFUSED:
        raise InputError(
            f"'{base}' is of the family '{kind}', which is not supported: {REFUSED[kind]}",
            where="base.model",
            remedy=REMEDY,
        )
    if texts and kind in NO_TEXTS:
        raise InputError(
            f"'{base}' is of the family '{kind}', whose texts cannot be written: it has no "
            "cache that is carried from one token to the next",
            where="base.model",
            expected="a base of another family, or tasks that choose among options",
            remedy=REMEDY,
        )


def _model_type(folder: Path | None) -> str:
    try:
        config = parse_json(read_bytes(folder / "config.json")) if folder else None
    except (OSError, ValueError):
        return ""
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) else ""
