"""What adapters hold and where they disagree, computed on their factors and never on the deltas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koinize.adapter import Adapter, AdapterHeader
from koinize.engine.plan import read_headers
from koinize.engine.stream import in_order, single_threaded

if TYPE_CHECKING:
    from koinize.merge.compare import Comparison

ENERGY_SHARES = (0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Inspection:
    """Figures over all modules; matrices are in the order of `languages`.

    norms: Frobenius norm of each adapter's whole update. cosine: of the updates as vectors.
    column_overlap, row_overlap: mean squared cosine of the principal angles between the column
    (B) and row (A) spaces, module by module: 1 for equal spaces, near 0 for unrelated ones.
    sign_conflict: estimated share of entries whose signs differ, if both were Gaussian:
    arccos(cosine) / pi. ranks: the mean rank that keeps 90 % and 99 % of the energy.
    """

    languages: tuple[str, ...]
    base_model: str
    modules: tuple[int, ...]
    parameters: tuple[int, ...]
    norms: tuple[float, ...]
    cosine: tuple[tuple[float, ...], ...]
    column_overlap: tuple[tuple[float, ...], ...]
    row_overlap: tuple[tuple[float, ...], ...]
    sign_conflict: tuple[tuple[float, ...], ...]
    ranks: tuple[tuple[float, ...], ...]


def inspect_adapters(adapters: Mapping[str, Path | str], *, threads: int = 1) -> Inspection:
    """Describe adapters of one base model, and how they interfere with one another.

    Raises InputError as merging does. Cost: a few products of rank x rank per module.
    """
    headers = read_headers(adapters)
    modules = sorted({name for header in headers.values() for name in header.modules})
    with ThreadPoolExecutor(max(1, threads), initializer=single_threaded) as pool, ExitStack() as s:
        opened = [s.enter_context(Adapter(header)) for header in headers.values()]

        def work(module: str) -> Comparison:
            from koinize.merge.compare import compare

            present = [
                one.factors(module) if module in one.header.modules else None for one in opened
            ]
            return compare(present, ENERGY_SHARES)

        comparisons = [result for _, result in in_order(pool, work, modules, threads + 1)]
    return _summary(headers, comparisons)


def _summary(headers: Mapping[str, AdapterHeader], found: list[Comparison]) -> Inspection:
    indexes = range(len(headers))
    inner = [[sum(one.inner[i][j] for one in found) for j in indexes] for i in indexes]
    norms = [math.sqrt(max(0.0, inner[i][i])) for i in indexes]
    cosine = tuple(
        tuple(inner[i][j] / (norms[i] * norms[j]) if norms[i] * norms[j] else 0.0 for j in indexes)
        for i in indexes
    )
    return Inspection(
        languages=tuple(headers),
        base_model=next(iter(headers.values())).base_model,
        modules=tuple(len(header.modules) for header in headers.values()),
        parameters=tuple(
            sum(m.rank * (m.inputs + m.outputs) for m in header.modules.values())
            for header in headers.values()
        ),
        norms=tuple(norms),
        cosine=cosine,
        column_overlap=_mean([one.columns for one in found]),
        row_overlap=_mean([one.rows for one in found]),
        sign_conflict=tuple(
            tuple(math.acos(max(-1.0, min(1.0, value))) / math.pi for value in row)
            for row in cosine
        ),
        ranks=_mean([one.ranks for one in found]),
    )


def _mean(tables: list[list[list[float | None]]]) -> tuple[tuple[float, ...], ...]:
    """Entry by entry over the modules, leaving out where an adapter has no such module."""
    rows, columns = len(tables[0]), len(tables[0][0])
    result = []
    for i in range(rows):
        row = []
        for j in range(columns):
            values = [table[i][j] for table in tables]
            known = [value for value in values if value is not None]
            row.append(sum(known) / len(known) if known else 0.0)
        result.append(tuple(row))
    return tuple(result)
