"""Where all the machine time went: every interval once, idle and failed time included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from koinize.ledger import (
    GATE,
    IDLE,
    LOAD,
    PROVISION,
    Address,
    Interval,
    by_run,
    elapsed,
    idle,
    joules,
    total,
    unused,
)
from koinize.ledger.address import SEARCH
from koinize.report.blocks import Tone
from koinize.report.cost_figures import AroundRow, Energy, Run, SpentRow, Stretch, Timeline
from koinize.report.costs import (
    Accounts,
    Taken,
    branch,
    choosing,
    combined_training,
    merging,
    number,
    testing,
    training,
    trunk,
)
from koinize.report.input import ReportInput, TaskInput

AROUND = ((PROVISION, "start the workers"), (LOAD, "load the model"), (GATE, "judge releases"))
"""Work that belongs to no step, and what it is called."""


@dataclass(frozen=True)
class Phase:
    """Work that belongs together: one bar. `kind` is its colour; without a task it is beside."""

    task: str
    label: str
    kind: Tone
    work: Sequence[Interval]


def breakdown(source: ReportInput, accounts: Accounts) -> list[SpentRow]:
    """All machine time that the ledger knows, each second once, idle time included."""
    rows = list(_each_once(row for task in source.tasks for row in _task_rows(task, accounts)))
    counted = {id(one) for row in rows for one in row.work}
    counted |= {id(one) for some in accounts.attempts.values() for one in some}
    standing = {id(one) for one in accounts.standing.values()}
    rest = [one for one in source.intervals if id(one) not in counted and one.kind != IDLE]
    done = [one for one in rest if one.status == "done"]
    beside = [
        Phase(
            "", label, "test" if kind == GATE else "base", [one for one in done if one.kind == kind]
        )
        for kind, label in AROUND
    ]
    steps = [one for one in done if one.kind not in dict(AROUND)]
    here = [one for one in steps if id(one) in standing]
    ancestors = {one for chain in source.continued.values() for one in chain}
    gone_on_from = [one for one in steps if one.artifact in ancestors and id(one) not in standing]
    gone = [one for one in steps if id(one) not in standing and one.artifact not in ancestors]
    rows += [
        _row("", "base model and other", "base", here),
        *beside,
        _row("", "trainings gone on from", "train", gone_on_from),
        _row("", "superseded", "superseded", gone),
        _row("", "failed", "failed", [one for one in rest if one.status == "failed"]),
        _row("", "interrupted", "failed", [one for one in rest if one.status == "interrupted"]),
    ]
    taken = [(row, accounts.taken(row.work)) for row in rows]
    bars = [_bar(row.task, row.label, row.kind, one) for row, one in taken if one]
    waited = _idle(source, accounts)
    return [*bars, _bar("", "idle", "idle", waited)] if waited else bars


def _each_once(phases: Iterable[Phase]) -> Iterator[Phase]:
    """What several tasks stand on, such as merges across them, is the work of the first."""
    seen = set[str]()
    for one in phases:
        work = [each for each in one.work if each.id not in seen]
        seen |= {each.id for each in work}
        yield replace(one, work=work)


def _bar(task: str, label: str, kind: Tone, taken: Taken) -> SpentRow:
    return {
        "task": task,
        "label": label,
        "kind": kind,
        "machine_seconds": float(taken.machine),
        "cost": number(taken.cost),
        "steps": taken.steps,
    }


def around(source: ReportInput, accounts: Accounts) -> list[AroundRow]:
    """What no step of its own caused, on both clocks: the idle row's elapsed is that of nothing."""
    every = [*source.intervals]
    rows = [
        (label, accounts.taken([one for one in every if (one.kind, one.status) == (kind, "done")]))
        for kind, label in AROUND
    ]
    gone_on = {id(one) for some in accounts.attempts.values() for one in some}
    for status in ("failed", "interrupted"):
        lost = [one for one in every if one.status == status and one.kind != IDLE]
        lost = [one for one in lost if id(one) not in gone_on]
        rows.append((status, accounts.taken(lost)))
    rows.append(("idle", _idle(source, accounts)))
    return [{"label": label, **taken.figures()} for label, taken in rows if taken]


def energy(source: ReportInput) -> Energy | None:
    """What the meters read in all, and how much of the machine time they saw; None without any."""
    read = [one for one in source.intervals if one.joules is not None]
    energy = joules(read)
    if energy is None:
        return None
    seen, whole = total(read)[0], total(source.intervals)[0]
    return {
        "joules": float(energy),
        "sources": sorted({one.energy.get("source", "") for one in read}),
        "machine_time_percent": float(100 * seen / whole) if whole else 100.0,
    }


def _task_rows(task: TaskInput, accounts: Accounts) -> list[Phase]:
    """The work of one task by phase."""
    name = task.name
    merges, chosen = merging(task, accounts), choosing(task, accounts)
    tests = testing(task, accounts)
    own = {id(one) for one in [*merges, *chosen, *tests]}
    work = accounts.of(name, "merge", SEARCH, "select", "evaluate", "judge")
    rest = [one for one in work.values() if id(one) not in own]
    from_the_trunk = [
        _row(
            name, f"train {language} from the trunk", "train", accounts.find(branch(task, language))
        )
        for language in task.branches or ()
    ]
    means = [one.name for one in task.systems if one.kind == "mean"]
    shared, combined = accounts.find(trunk(task), combined_training(task))
    return [
        *(
            _row(name, f"train {language}", "train", accounts.find(training(task, language)))
            for language in task.languages
        ),
        _row(name, "train the trunk", "comb", [shared]),
        *from_the_trunk,
        _row(name, "train COMB", "comb", [combined if combined is not shared else None]),
        _row(name, "merge the candidates", "merge", merges),
        _row(name, "choose on dev", "choose", chosen),
        _row(name, f"{' and '.join(means) or 'MEAN'}: merge and choose", "merge", rest),
        _row(name, "evaluate on test", "test", tests),
        _row(name, "all of it with further seeds", "train", accounts.repeated(name)),
    ]


def _row(task: str, label: str, kind: Tone, work: Iterable[Interval | None]) -> Phase:
    return Phase(task, label, kind, [one for one in work if one])


def _idle(source: ReportInput, accounts: Accounts) -> Taken | None:
    """What of all runs nothing took; its elapsed time is that during which nothing ran."""
    every = list(by_run(source.intervals).values())
    if not every:
        return None
    seconds = [idle(one) for one in every]
    costs = [
        accounts.cost_of_seconds(some, one[0]) for some, one in zip(seconds, every, strict=True)
    ]
    known = [cost for cost in costs if cost is not None]
    return Taken(
        elapsed=sum(map(unused, every), Decimal(0)),
        machine=sum(seconds, Decimal(0)),
        cost=sum(known, Decimal(0)) if len(known) == len(costs) else None,
        steps=0,
    )


def runs(source: ReportInput, accounts: Accounts) -> list[Run]:
    """Every run, oldest first: elapsed from its first start to its last end, and what of it."""
    return [_run(name, work, accounts) for name, work in by_run(source.intervals).items()]


def _run(name: str, every: Sequence[Interval], accounts: Accounts) -> Run:
    wall, waited = elapsed(every), idle(every)
    work = [one for one in every if one.kind != IDLE]
    steps = [one for one in work if one.kind not in (PROVISION, LOAD)]
    busy = total(work)[0]

    def lost(status: str) -> float:
        return float(total(one for one in work if one.status == status)[0])

    def ended(status: str) -> int:
        return sum(one.status == status for one in steps)

    return {
        "run": name,
        "started": min(one.started for one in every).isoformat(timespec="seconds"),
        "device": every[0].device,
        "elapsed_seconds": float(wall),
        "machine_seconds": float(busy),
        "idle_seconds": float(waited),
        "idle_cost": number(accounts.cost_of_seconds(waited, every[0])),
        "cost": number(accounts.cost_of_seconds(max(wall, busy), every[0])),
        "steps": {
            "done": ended("done"),
            "failed": ended("failed"),
            "interrupted": ended("interrupted"),
            "open": ended("open"),
        },
        "failed_seconds": lost("failed"),
        "interrupted_seconds": lost("interrupted"),
    }


def _brief(step: Address) -> str:
    """What fits into a bar: the language of a training, otherwise the kind of step."""
    if step.kind != "train":
        return step.kind
    return step.language or step.role.upper()


def _tone(source: ReportInput, step: Address) -> Tone:
    if step.kind == "train" and not step.language:
        return "comb"
    if step.kind in ("evaluate", "judge") and step.split == "dev":
        return "choose"
    return source.tones.get(step.kind, "test" if step.kind == GATE else "base")


def timeline(source: ReportInput) -> Timeline | None:
    """The last run that trained something (or the last of all): which worker did what, and when."""
    if not source.intervals:
        return None
    trained = [one for one in source.intervals if one.kind == "train" and one.status == "done"]
    run = (trained or list(source.intervals))[-1].run
    here = [one for one in source.intervals if one.run == run]
    work = sorted((one for one in here if one.kind != IDLE), key=lambda one: one.started)
    begun = min(one.started for one in here)
    origin = begun.timestamp()
    bars, free = list[Stretch](), list[float]()
    for interval in work:
        start = interval.started.timestamp() - origin
        lane = next((at for at, until in enumerate(free) if until <= start + 0.05), len(free))
        free[lane : lane + 1] = [start + float(interval.seconds)]
        bars.append(
            {
                "lane": lane,
                "step": interval.step,
                "kind": interval.kind,
                "name": _brief(interval.address),
                "tone": _tone(source, interval.address),
                "status": interval.status,
                "start_seconds": round(start, 3),
                "seconds": float(interval.seconds),
                "share": float(interval.share),
                "tokens": interval.tokens,
                "error": interval.error,
            }
        )
    return {
        "run": run,
        "started": begun.isoformat(timespec="seconds"),
        "elapsed_seconds": float(elapsed(here)),  # what the table of runs says, too
        "lanes": len(free),
        "bars": bars,
    }
