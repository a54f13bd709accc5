"""What is missing, why, and what it will cost, before it costs anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median

from koinize.ledger import Interval
from koinize.pipeline.step import Step
from koinize.store import Artifact, Store

FIRST_GUESS = {
    # Seconds per unit on one core of a 2020s server with a model of 270 M parameters in bf16: what
    # is used until this project's own ledger knows better.
    "base": 60.0,
    "train": 1 / 700,
    "import": 1.0,
    "merge": 5.0,
    "evaluate": 1 / 1800,
    "select": 1.0,
}

SHOWN_CHANGES = 3


@dataclass(frozen=True)
class Missing:
    """A step that has to run, the reason, and the wall seconds that it is expected to take."""

    step: Step
    why: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The missing steps in order, the number of steps in all, and the estimate.

    `wall_seconds`: until the last one ends, `workers` at a time. `machine_seconds`: the sum of
    every step's share of the machine. `cost`: that at the price; None without one.
    """

    missing: tuple[Missing, ...]
    total: int
    wall_seconds: float
    machine_seconds: float
    cost: Decimal | None
    currency: str
    learnt: bool


def plan(
    steps: Sequence[Step],
    store: Store,
    intervals: Sequence[Interval],
    workers: int,
    price: Mapping[str, str],
) -> Plan:
    """Compare the steps with the store. Reads names and manifests, never a tensor."""
    present = store.ids()
    names = store.names()
    rates = _rates(intervals)
    labels = {step.id: step.name for step in steps}
    missing = tuple(
        Missing(step, _why(step, store, names, labels, present), _seconds(step, rates))
        for step in steps
        if step.id not in present
    )
    machine = sum(one.seconds for one in missing) / workers
    cost = Decimal(machine) * Decimal(price["per_hour"]) / 3600 if price else None
    return Plan(
        missing=missing,
        total=len(steps),
        wall_seconds=_makespan(missing, workers),
        machine_seconds=machine,
        cost=cost,
        currency=price.get("currency", ""),
        learnt=any(one.step.kind in rates for one in missing),
    )


def _why(
    step: Step,
    store: Store,
    names: Mapping[str, str],
    labels: Mapping[str, str],
    present: set[str],
) -> str:
    before = store.manifest(names[step.name]) if step.name in names else None
    if before is None:
        return "never done"
    if before.id == step.id:
        return "its artifact is gone"
    changes = [
        _change(label, step, before, labels, present)
        for label in sorted({*before.inputs, *step.identity})
        if before.inputs.get(label) != step.identity.get(label)
    ]
    if len(changes) > SHOWN_CHANGES:
        changes[SHOWN_CHANGES - 1 :] = [f"{len(changes) - SHOWN_CHANGES + 1} more inputs changed"]
    return "; ".join(changes) or "koinize computes it differently now"


def _change(
    label: str, step: Step, before: Artifact, labels: Mapping[str, str], present: set[str]
) -> str:
    if label in step.rows:
        old = before.facts.get("rows", {}).get(label)
        delta = f", {step.rows[label] - old:+d} rows" if old not in (None, step.rows[label]) else ""
        return f"{label} changed{delta}"
    if label in step.uses:
        upstream = labels.get(step.uses[label], label)
        made = "changed" if step.uses[label] in present else "is made anew"
        return f"{upstream} {made}"
    if label not in step.identity:
        return f"{label} no longer used"
    return f"{label} {'changed' if label in before.inputs else 'added'}"


def _rates(intervals: Sequence[Interval]) -> dict[str, float]:
    """Seconds per unit of each kind of step, the median of what this project has done."""
    seen: dict[str, list[float]] = {}
    for one in intervals:
        if one.status == "done" and one.units:
            seen.setdefault(one.kind, []).append(float(one.seconds) / one.units)
    return {kind: median(rates) for kind, rates in seen.items()}


def _seconds(step: Step, rates: Mapping[str, float]) -> float:
    return max(1, step.units) * rates.get(step.kind, FIRST_GUESS[step.kind])


def _makespan(missing: Sequence[Missing], workers: int) -> float:
    """When the last step ends if each starts as soon as its needs and a worker allow."""
    free = [0.0] * workers
    ends: dict[str, float] = {}
    for one in missing:
        ready = max((ends.get(need, 0.0) for need in one.step.needs), default=0.0)
        worker = min(range(workers), key=lambda index: (max(free[index], ready), index))
        ends[one.step.id] = free[worker] = max(free[worker], ready) + one.seconds
    return max(ends.values(), default=0.0)
