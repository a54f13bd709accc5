"""What adapters hold and where they disagree, computed on their factors and never on the deltas."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from koinize.adapter import Adapter, AdapterHeader, Factors
from koinize.engine.plan import read_inputs
from koinize.engine.workers import in_order, worker_pool
from koinize.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from koinize.engine.compare import Comparison

ENERGY_SHARES = (0.9, 0.99)
By = Literal["module", "layer"]
Matrix = tuple[tuple[float, ...], ...]
LAYER = re.compile(r"(?:.*?\.)?\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Interference:
    """Figures over some modules; vectors and matrices are in the order of the languages.

    modules: how many of them each adapter has. norms: Frobenius norm of each adapter's update.
    cosine: of the updates as vectors. column_overlap, row_overlap: mean squared cosine of the
    principal angles between the column (B) and row (A) spaces: 1 for equal spaces, near 0 for
    unrelated ones. column_angle, row_angle: the smallest of these angles, in degrees, averaged over
    the modules. sign_conflict: share of the entries that both updates change on which their signs
    differ, counted on 64 rows of each module. ranks: the mean rank that keeps 90 % and 99 % of the
    energy. energy: the share of an adapter's energy (squared norm) that its best approximation of
    rank 1, 2, 4, ... keeps, up to the largest rank, with those ranks in `energy_ranks`.
    """

    modules: tuple[int, ...]
    norms: tuple[float, ...]
    cosine: Matrix
    column_overlap: Matrix
    row_overlap: Matrix
    column_angle: Matrix
    row_angle: Matrix
    sign_conflict: Matrix
    ranks: Matrix
    energy_ranks: tuple[int, ...]
    energy: Matrix


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found: over all modules, and in `parts` by module or layer where asked for.

    repeated: decompositions that a library got wrong at first and another one right.
    """

    languages: tuple[str, ...]
    base_model: str
    parameters: tuple[int, ...]
    total: Interference
    parts: Mapping[str, Interference] = field(default_factory=dict)
    repeated: int = 0


def inspect_adapters(
    adapters: Mapping[str, Path | str],
    *,
    trunk: Path | str | None = None,
    threads: int = 1,
    by: By | None = None,
) -> Inspection:
    """Describe adapters of one base model, and how they interfere with one another.

    trunk: an adapter that all of them were trained on from. Then all figures but the parameters are
    those of the differences from it; where an adapter is equal to it, as if it had no such module.

    by: also "module" by module, or "layer" by layer (names up to their first number). Raises
    InputError as merging does. Cost: two products of a few columns per module.
    """
    given = read_inputs(adapters, trunk)
    headers = given.adapters
    with ExitStack() as stack:
        opened = [stack.enter_context(Adapter(header)) for header in headers.values()]
        root = stack.enter_context(Adapter(given.trunk)) if given.trunk else None

        def work(module: str) -> tuple[Comparison, int]:
            from koinize.engine.compare import compare, differences
            from koinize.merge.decompose import repeats

            with repeats() as repeated:
                updates = [_factors(one, module) for one in opened]
                start = _factors(root, module)
                found = compare(updates if start is None else differences(updates, start))
            return found, len(repeated)

        with worker_pool(threads) as pool:
            done = dict(in_order(pool, work, given.modules, threads + 1))
    found = {module: comparison for module, (comparison, _) in done.items()}
    groups: dict[str, list[Comparison]] = {}
    for module, comparison in found.items():
        if by is not None:
            groups.setdefault(_part(module, by), []).append(comparison)
    return Inspection(
        languages=tuple(headers),
        base_model=next(iter(headers.values())).base_model,
        parameters=tuple(_parameters(header) for header in headers.values()),
        total=_summary(list(found.values())),
        parts={name: _summary(groups[name]) for name in sorted(groups, key=_natural)},
        repeated=sum(count for _, count in done.values()),
    )


def _factors(adapter: Adapter | None, module: str) -> Factors | None:
    there = adapter is not None and module in adapter.header.modules
    return adapter.factors(module) if adapter is not None and there else None


def part_kind(word: str | None) -> By | None:
    """A user's word for `by`. Raises InputError."""
    kinds: dict[str, By] = {kind: kind for kind in get_args(By)}
    if word is None or word in kinds:
        return kinds[word] if word else None
    raise InputError(f"there is no breakdown by '{word}'", remedy=did_you_mean(word, kinds))


def _part(module: str, by: By) -> str:
    found = LAYER.match(module) if by == "layer" else None
    return found[0] if found else module


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in name.split(".")]


def _parameters(header: AdapterHeader) -> int:
    return sum(one.rank * (one.inputs + one.outputs) for one in header.modules.values())


def _summary(found: Sequence[Comparison]) -> Interference:
    indexes = range(len(found[0].inner))

    def matrix(entry: Callable[[int, int], float]) -> Matrix:
        return tuple(tuple(entry(i, j) for j in indexes) for i in indexes)

    inner = matrix(lambda i, j: math.fsum(one.inner[i][j] for one in found))
    norms = tuple(math.sqrt(max(0.0, inner[i][i])) for i in indexes)
    energies = [[one.energy[i] for one in found if one.energy[i]] for i in indexes]
    steps = _powers(max((len(one) for energy in energies for one in energy), default=1))
    return Interference(
        modules=tuple(len(energy) for energy in energies),
        norms=norms,
        cosine=matrix(lambda i, j: _ratio(inner[i][j], norms[i] * norms[j])),
        column_overlap=matrix(lambda i, j: _overlap(one.columns[i][j] for one in found)),
        row_overlap=matrix(lambda i, j: _overlap(one.rows[i][j] for one in found)),
        column_angle=matrix(lambda i, j: _angle(one.columns[i][j] for one in found)),
        row_angle=matrix(lambda i, j: _angle(one.rows[i][j] for one in found)),
        sign_conflict=matrix(
            lambda i, j: _ratio(
                math.fsum(one.opposed[i][j] for one in found),
                math.fsum(one.counted[i][j] for one in found),
            )
        ),
        ranks=tuple(
            tuple(_mean(_rank(one, share) for one in energy) for share in ENERGY_SHARES)
            for energy in energies
        ),
        energy_ranks=steps,
        energy=tuple(tuple(_kept(energy, rank) for rank in steps) for energy in energies),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return math.fsum(known) / len(known) if known else 0.0


def _overlap(cosines: Iterable[Sequence[float]]) -> float:
    return _mean(_mean(c * c for c in one) for one in cosines if one)


def _angle(cosines: Iterable[Sequence[float]]) -> float:
    return _mean(math.degrees(math.acos(one[0])) for one in cosines if one)


def _rank(energy: Sequence[float], share: float) -> int:
    """The smallest rank that keeps this share of the squared Frobenius norm."""
    sums = list(accumulate(energy))
    return 1 + sum(kept < share * sums[-1] for kept in sums[:-1])


def _kept(energies: Sequence[Sequence[float]], rank: int) -> float:
    """The share of the energy of all modules that is left when each keeps this rank."""
    return _ratio(
        math.fsum(sum(one[:rank]) for one in energies), math.fsum(map(math.fsum, energies))
    )


def _powers(largest: int) -> tuple[int, ...]:
    """1, 2, 4, ... and the largest rank itself."""
    return (*(2**power for power in range((largest - 1).bit_length())), largest)
