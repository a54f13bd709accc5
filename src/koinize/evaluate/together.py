"""Evaluation of many adapters of one base on the same rows, several of them in a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from koinize.adapter import AdapterHeader, read_header
from koinize.evaluate import Mode, Progress, choose, evaluate
from koinize.evaluate.free import write_freely
from koinize.model.loaded import Loaded, with_adapter
from koinize.model.stacked import fits, with_adapters
from koinize.settings import EvaluationSpec
from koinize.tasks import Example

AT_ONCE = 16
"""Adapters in a pass: a GPU is busy with them on short rows, and their factors stay small."""

Folder = Path | None
"""A PEFT folder; None is the bare base."""


def evaluate_together(
    loaded: Loaded,
    folders: Sequence[Folder],
    examples: Sequence[Example],
    mode: Mode,
    settings: EvaluationSpec,
    progress: Progress | None = None,
) -> list[list[dict[str, object]]]:
    """The rows of `evaluate` for each adapter, in the order given; equal to the dtype's rounding.

    Texts are written adapter by adapter, and so is everything for an adapter that cannot share a
    pass: one of the output layer, of experts, or with whole modules. `progress` gets (examples
    done, all examples), over all adapters. Raises what `evaluate` and `with_adapter` raise.
    """
    tell = _counter(len(folders) * len(examples), progress)
    found: dict[int, list[dict[str, object]]] = {}
    shared: dict[int, AdapterHeader | None] = {}
    for place, folder in enumerate(folders):
        header = read_header(folder) if folder else None
        if mode == "options" and (header is None or fits(loaded, header)):
            shared[place] = header
            continue
        with with_adapter(loaded, folder):
            found[place] = evaluate(loaded, examples, mode, settings)
        tell(len(examples))
    for places in _groups(list(shared)):
        with with_adapters(loaded, [shared[place] for place in places]), torch.inference_mode():
            rows: dict[int, list[dict[str, object]]] = {}
            for index, each in choose(loaded, examples, settings, len(places), {}):
                rows[index] = each
                tell(0 if settings.free else len(places))
        for number, place in enumerate(places):
            found[place] = [rows[index][number] for index in range(len(examples))]
    for place in shared if settings.free else ():
        with with_adapter(loaded, folders[place]), torch.inference_mode():
            for index, own in write_freely(loaded, examples, settings):
                found[place][index] |= own
        tell(len(examples))
    return [found[place] for place in range(len(folders))]


def _groups(places: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(places), AT_ONCE):
        yield places[start : start + AT_ONCE]


def _counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total)

    return tell
