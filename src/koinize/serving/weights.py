"""The weights that may be at work where an adapter should be: it, the base, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from koinize.adapter import read_header
from koinize.adapter.config import CONFIG_FILE, parse_config
from koinize.files import LARGEST_TEXT, read_bytes

Kind = Literal["adapter", "base", "scale", "other"]
Rescale = Callable[[int, float], float]
"""A module's rank and its right scale -> the scale that a server gives it."""


@dataclass(frozen=True)
class Weights:
    """The base with an adapter, None for the bare base, its scales as they are or by `rescale`."""

    kind: Kind
    name: str
    folder: Path | None = None
    rescale: Rescale | None = None


def weights_of(adapter: Path, others: Mapping[str, Path]) -> list[Weights]:
    """The adapter first, then the base, its other scales, and the others.

    Scales that come to the same as one before them are left out. Raises InputError.
    """
    modules = read_header(adapter).modules.values()
    pairs = sorted({(one.rank, one.scale) for one in modules})
    found = [Weights("adapter", "the adapter", adapter), Weights("base", "the base model")]
    seen = [[scale for _, scale in pairs]]
    for name, rescale in _scales(adapter):
        given = [rescale(rank, scale) for rank, scale in pairs]
        if not any(map(_alike, given_pairs(given, seen))):
            seen.append(given)
            found.append(Weights("scale", name, adapter, rescale))
    found += [Weights("other", name, folder) for name, folder in others.items()]
    return found


def given_pairs(given: list[float], seen: list[list[float]]) -> list[list[tuple[float, float]]]:
    """The scales beside each list of those before."""
    return [list(zip(given, before, strict=True)) for before in seen]


def _alike(pairs: list[tuple[float, float]]) -> bool:
    return all(math.isclose(one, other) for one, other in pairs)


def _scales(adapter: Path) -> Iterator[tuple[str, Rescale]]:
    """The rules by which servers have scaled adapters, other than PEFT's."""
    path = adapter / CONFIG_FILE
    config = parse_config(path, read_bytes(path, LARGEST_TEXT))
    alpha, rank = float(str(config["lora_alpha"])), float(str(config["r"]))
    if config.get("use_rslora") is True:
        yield "alpha / r where the adapter says alpha / sqrt(r)", lambda r, s: s / math.sqrt(r)
        one_for_all = alpha / math.sqrt(rank)
    else:
        yield "alpha / sqrt(r) where the adapter says alpha / r", lambda r, s: s * math.sqrt(r)
        one_for_all = alpha / rank
    yield "rank_pattern and alpha_pattern ignored", lambda _r, _s: one_for_all
    yield "lora_alpha / r for all modules, whatever alpha_pattern says", lambda r, _s: alpha / r
    yield "twice the scale", lambda _r, s: 2 * s
    yield "half the scale", lambda _r, s: s / 2
    yield "the scale 1, whatever lora_alpha says", lambda _r, _s: 1.0
    yield "lora_alpha, not divided by the rank", lambda _r, _s: alpha
