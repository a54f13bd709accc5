"""What `koinize ledger show` says, once more, from the lines of the ledger; and what has to hold of
them by docs/ledger.md, whatever was done.

What one line says is taken as it is. How the seconds of steps that were done at once were shared
out (by the tokens of every optimizer step) and how many joules fell into one interval left no trace
by which to reckon again; that they add up is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.oracle.account import busy, machine, span
from tests.oracle.costs import runs_of, started, waited
from tests.oracle.project import Piece, read_pieces

ROUNDING = Fraction(1, 100_000)  # the share of what is idle has nine places, seconds have three
MILLISECOND = Fraction(1, 1000)  # by which kills that an older koinize closed may be off


def shown(home: Path) -> dict[str, Any]:
    """All of its JSON but for clocks that were set back."""
    pieces = read_pieces(home)
    kinds = dict[str, list[Piece]]()
    for one in pieces:
        name = one.kind if one.status == "done" else f"{one.kind}, {one.status}"
        kinds.setdefault(name, []).append(one)
    runs = runs_of(pieces)
    alone = sum((span(one) - busy(one) for one in runs), Fraction(0))  # while nothing ran
    return {
        "kinds": {
            name: _sum(some, alone if name == "idle" else busy(some))
            for name, some in kinds.items()
        },
        "runs": [
            {
                "run": one[0].run,
                "started_utc": started(one),
                **_sum(one, span(one)),
                "idle_machine_seconds": waited(one),
            }
            for one in runs
        ],
        "total": _sum(pieces, sum(map(span, runs), Fraction(0))),
    }


def _sum(some: Sequence[Piece], wall: Fraction) -> dict[str, Any]:
    read = [Fraction(one.energy["joules"]) for one in some if one.energy]
    cost = dict[str, Fraction]()
    for one in (one for one in some if one.price):
        currency = one.price["currency"]
        paid = one.machine * Fraction(one.price["per_hour"]) / 3600
        cost[currency] = cost.get(currency, Fraction(0)) + paid
    return {
        "intervals": len(some),
        "wall_seconds": wall,
        "machine_seconds": machine(some),
        "cost": cost,
        "joules": sum(read, Fraction(0)) if read else None,
    }


def as_numbers(said: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON with numbers where it has decimals as text, which are rounded to the billionth."""
    return {key: _number(key, one) for key, one in said.items() if key != "clock_set_back"}


def _number(key: str, one: Any) -> Any:
    if isinstance(one, Mapping):
        return {name: _number(name, value) for name, value in one.items()}
    if isinstance(one, list):
        return [_number(key, value) for value in one]
    if isinstance(one, str) and key not in ("run", "started_utc"):
        return float(one)
    return one


def contradictions(home: Path) -> list[str]:
    """What of the lines cannot be."""
    return [wrong for run in runs_of(read_pieces(home)) for wrong in _of_run(run)]


def _of_run(run: Sequence[Piece]) -> Iterator[str]:
    """Of a run on one machine: nothing that was paid for is missing, and nothing is there twice."""
    name, whole = run[0].run, span(run)
    if any(one.kind == "idle" for one in run) and abs(machine(run) - whole) > ROUNDING * whole:
        yield f"{name}: {float(machine(run))} s of the machine in {float(whole)} s"
    work = [one for one in run if one.kind != "idle"]
    for at in {one.begin for one in work}:
        used = sum(one.share for one in work if one.begin <= at < one.end - MILLISECOND)
        if used > 1 + ROUNDING:
            yield f"{name}: {float(used)} of the machine at {float(at)} s"
    groups = dict[str, list[Piece]]()
    for one in (one for one in work if one.group):
        groups.setdefault(one.group, []).append(one)
    for group, together in groups.items():
        yield from _of_group(group, together, work)


def _of_group(group: str, together: Sequence[Piece], work: Sequence[Piece]) -> Iterator[str]:
    """Begun at once, they lie one after the other in their worker's time, loads between them."""
    made = {one.artifact for one in together}
    loads = [one for one in work if one.kind == "load" and one.artifact in made]
    reached = min(one.at for one in together)
    for one in sorted([*together, *loads], key=lambda one: (one.end, one.begin)):
        if abs(one.begin - reached) > MILLISECOND:
            yield f"{group}: {one.step} begins at {float(one.begin)} s, not {float(reached)} s"
        reached = one.end
