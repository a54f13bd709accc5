"""How much memory a merge takes, from file headers alone, and how many modules fit at once.

What is counted are the tensors. The interpreter with torch (about 0.3 GB) is not.
"""

from __future__ import annotations

import re

from koinize.adapter.experts import is_part
from koinize.adapter.factors import KEPT
from koinize.engine.plan import Inputs
from koinize.errors import InputError
from koinize.merge.recipe import MergeSettings
from koinize.merge.slots import SPACES, SPARSIFIERS

UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
# Matrices of the size of one X_i that are alive at once: one X_i whole, for its threshold, or the
# merge, each with what is computed from it.
WHOLE = 3
# Restoring an L1 norm also draws the masks of one X_i at once, with 64-bit ranks and probabilities.
WHOLE_WITH_MASKS = 14
# Float64 matrices of (sum of ranks) squared: Gram matrices, eigenvectors and their workspace.
SMALL = 16


def byte_count(size: int | str) -> int:
    """Bytes, of a number or of text such as "1.5GB" or "512 MiB". Raises InputError."""
    found = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-z]*)\s*", str(size).lower())
    count = int(float(found[1]) * UNITS[found[2]]) if found and found[2] in UNITS else 0
    if count < 1:
        raise InputError(
            f"max-memory '{size}' cannot be read",
            expected="bytes, or a number with a unit such as 1.5GB or 512MiB",
        )
    return count


def modules_at_once(
    given: Inputs,
    settings: MergeSettings,
    limit: int | None,
    threads: int,
    on_cpu: bool = True,
) -> int:
    """How many modules may be in flight: one more than threads, or as many as the limit holds.

    on_cpu: whether cores do the work; a GPU has no tiles, and whole matrices instead. Raises
    InputError if the largest module alone does not fit, with what it needs.
    """
    if limit is None:
        return threads + 1
    largest, module = max(
        (module_bytes(given, settings, name, on_cpu), name) for name in given.modules
    )
    # Beside the modules in flight, one is being written, with all that wait to be so with it.
    written = _output_bytes(given, settings, module) + _stack_bytes(given, settings)
    if largest + written > limit:
        space = settings.composition().space
        remedy = f"give max-memory at least {_megabytes(largest + written)}"
        if SPACES[space].full:
            remedy += ", or merge in space 'knots' or 'core', which never form a whole update"
        raise InputError(
            f"module '{module}' needs {_megabytes(largest + written)} in space '{space}', and "
            f"max-memory is {limit / 1e6:.1f} MB",
            remedy=remedy,
        )
    return min(threads + 1, (limit - written) // largest)


def module_bytes(
    given: Inputs,
    settings: MergeSettings,
    module: str,
    on_cpu: bool = True,
) -> int:
    """The most bytes of tensors that merging one module holds at a time."""
    from koinize.merge.approximation import working_bytes
    from koinize.merge.linalg import GRAM_ROWS
    from koinize.merge.spaces._aligned import group_rows
    from koinize.merge.sparsify._trimmed import waiting_bytes
    from koinize.merge.stack import TILE_ELEMENTS

    outputs, inputs, ranks, trunk = _shape(given, module)
    ranks += [trunk] * len(given.groups)  # what a group becomes may have the trunk's factors too
    stacked, recipe = sum(ranks) + trunk, settings.composition()
    tall = 4 * stacked * (outputs + inputs)
    # As read, side by side or moved into the space, and as the result before and after its cast.
    total = 3 * tall + _output_bytes(given, settings, module)
    total += 8 * SMALL * stacked**2 + 8 * GRAM_ROWS * stacked
    if given.groups:  # what they became
        total += tall
    if recipe.on_factors:
        return total
    if trunk:  # the steps from it, and the factors of the differences
        total += 4 * sum(2 * rank + 3 * trunk for rank in ranks) * (outputs + inputs)
    entries, item = SPACES[recipe.space].entries(outputs, inputs, [*ranks, trunk]), 4
    masked = settings.resolve("rescale") == "l1"
    whole = (WHOLE_WITH_MASKS if masked else WHOLE) * item * entries
    languages = len(given.adapters)
    if any(SPARSIFIERS[name].waits for name in recipe.sparsify):
        whole = max(whole, item * entries + waiting_bytes(entries, languages))
    tile = max(TILE_ELEMENTS, group_rows(inputs) * inputs) if on_cpu else entries
    total += whole + (3 * languages + 6) * item * min(tile, entries)
    rank = given.largest_rank(module, settings)
    # The newest columns before and after they are made orthonormal, and `like`.
    columns = 3 * rank + stacked
    return total + 4 * (outputs + inputs) * columns + working_bytes(rank, outputs, inputs)


def _shape(given: Inputs, module: str) -> tuple[int, int, list[int], int]:
    """(outputs, inputs, the adapters' ranks, the trunk's)."""
    present = given.of_module(module)
    ranks = [one.rank for one in present]
    return present[0].outputs, present[0].inputs, ranks, given.trunk_rank(module)


def _stack_bytes(given: Inputs, settings: MergeSettings) -> int:
    """What is held of a stack of experts until the last of them is done: what was merged, as it
    came and put together, and of each adapter the tensors that all experts share.
    """
    firsts = [given.of_module(name)[0] for name in given.modules if is_part(name)]
    if not firsts:
        return 0
    merged = 2 * max(given.largest_rank(one, settings) for one in given.modules)
    files = KEPT * (len(given.adapters) + (given.trunk is not None))
    return max(
        4 * one.experts * (files * one.rank * one.outputs + merged * (one.outputs + one.inputs))
        for one in firsts
    )


def _output_bytes(given: Inputs, settings: MergeSettings, module: str) -> int:
    outputs, inputs, *_ = _shape(given, module)
    return 4 * 2 * given.largest_rank(module, settings) * (outputs + inputs)


def _megabytes(count: int) -> str:
    """Rounded up, so that what is asked for suffices."""
    return f"{-(-count // 10**5) / 10:.1f} MB"
