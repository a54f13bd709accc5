"""Where a project's time went: every interval of the ledger in one bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

from tests.oracle.account import Account, Figures, busy, machine, span
from tests.oracle.project import AROUND, SEARCH, Piece, read_json
from tests.oracle.task_costs import TaskCosts

Bar = tuple[str, str, list[Piece]]


def costs(account: Account, tasks: Sequence[TaskCosts]) -> Figures:
    """All of a report's `costs`."""
    bars = list(_each_once(bar for task in tasks for bar in _bars(task)))
    bars += _beside(account, bars)
    rows = []
    for task, label, work in bars:
        if taken := account.amount(work):
            del taken["elapsed_seconds"]
            rows.append({"task": task, "label": label, **taken})
    around = [{"label": label, **taken} for label, taken in _around(account)]
    if idle := next((dict(one) for one in around if one["label"] == "idle"), None):
        del idle["elapsed_seconds"]
        rows.append({"task": "", **idle})
    runs = runs_of(account.pieces)
    return {
        "breakdown": rows,
        "around": around,
        "energy": _energy(account.pieces),
        "runs": [_run(account, one) for one in runs],
        "timeline": _timeline(account.pieces),
    }


def _each_once(bars: Iterable[Bar]) -> Iterator[Bar]:
    """What several tasks share is of the first of them."""
    seen = set[str]()
    for task, label, work in bars:
        yield task, label, [one for one in work if one.name not in seen]
        seen |= {one.name for one in work}


def _bars(task: TaskCosts) -> list[Bar]:
    """The work of one task."""
    name, account = task.said["name"], task.account
    branched = task.trunk != "none"
    apart = {one: task.trained(task.one("train", language=one, role="")) for one in task.languages}
    trunk = task.trained(task.one("trunk"))
    comb = [] if task.comb is trunk else [task.comb]
    named = {id(one) for one in (*task.merges, *task.choice, *task.tests())}
    others = [s for s in account.steps if s.task == name and s.kind in (*_REST, SEARCH)]
    rest = [one for one in account.work(others) if id(one) not in named]
    means = [one["name"] for one in task.said["systems"] if one["kind"] == "mean"]
    bars = [
        *((f"train {one}", [work]) for one, work in apart.items()),
        ("train the trunk", [trunk]),
        *((f"train {one} from the trunk", [work]) for one, work in task.own.items() if branched),
        ("train COMB", comb),
        ("merge the candidates", task.merges),
        ("choose on dev", task.choice),
        (f"{' and '.join(means) or 'MEAN'}: merge and choose", rest),
        ("evaluate on test", task.tests()),
        (
            "all of it with further seeds",
            account.work([one for one in account.further if one.task == name]),
        ),
    ]
    return [(name, label, [one for one in work if one]) for label, work in bars]


_REST = ("merge", "select", "evaluate", "judge")


def _beside(account: Account, bars: Sequence[Bar]) -> list[Bar]:
    """What belongs to no task's bar."""
    counted = {id(part) for _, _, work in bars for part in account.wholly(work)}
    rest = [one for one in account.pieces if id(one) not in counted and one.kind != "idle"]
    steps = [one for one in rest if one.kind not in AROUND]
    done = [one for one in steps if one.status == "done"]
    here = {one.id for one in (*account.steps, *account.further)}
    current = [one for one in done if one.artifact in here and one is account.last[one.artifact]]
    gone = [one for one in done if one not in current]
    parents = _gone_on_from(account)
    return [
        ("", "base model and other", current),
        *(("", label, _of(rest, kind)) for kind, label in AROUND.items()),
        ("", "trainings gone on from", [one for one in gone if one.artifact in parents]),
        ("", "superseded", [one for one in gone if one.artifact not in parents]),
        *(("", one, [p for p in rest if p.status == one]) for one in ("failed", "interrupted")),
    ]


def _of(pieces: Sequence[Piece], kind: str) -> list[Piece]:
    return [one for one in pieces if (one.kind, one.status) == (kind, "done")]


def _gone_on_from(account: Account) -> set[str]:
    """The adapters on which continued ones stand."""
    found, left = set[str](), [one.manifest for one in (*account.steps, *account.further)]
    while left:
        parent = left.pop()["inputs"].get("parent")
        path = account.home / "artifacts" / str(parent) / "manifest.json"
        if parent and parent not in found:
            found.add(parent)
            left += [read_json(path)] if path.exists() else []
    return found


def _around(account: Account) -> list[tuple[str, Figures]]:
    """On both clocks, what no step caused."""
    rows = [(label, account.amount(_of(account.pieces, kind))) for kind, label in AROUND.items()]
    saved = {id(part) for one in account.last.values() for part in account.whole(one)}
    for status in ("failed", "interrupted"):
        lost = [p for p in account.pieces if p.status == status and p.kind != "idle"]
        rows.append((status, account.amount([one for one in lost if id(one) not in saved])))
    runs = runs_of(account.pieces)
    if runs:
        unused = [waited(one) for one in runs]
        paid = [account.hourly(one[0]) for one in runs]
        cost = [
            some * hourly / 3600
            for some, hourly in zip(unused, paid, strict=True)
            if hourly is not None
        ]
        idle = {
            "elapsed_seconds": sum((span(one) - busy(one) for one in runs), Fraction(0)),
            "machine_seconds": sum(unused, Fraction(0)),
            "cost": sum(cost, Fraction(0)) if len(cost) == len(runs) else None,
            "steps": 0,
        }
        rows.append(("idle", idle))
    return [(label, taken) for label, taken in rows if taken]


def waited(run: Sequence[Piece]) -> Fraction:
    """As it was recorded; of a run that recorded none, what its work left of the machine."""
    unused = [one for one in run if one.kind == "idle"]
    return machine(unused) if unused else max(Fraction(0), span(run) - machine(run))


def _energy(pieces: Sequence[Piece]) -> Figures | None:
    """Of the intervals in which a meter was read."""
    read = [one for one in pieces if "joules" in one.energy]
    if not read:
        return None
    return {
        "joules": sum((Fraction(one.energy["joules"]) for one in read), Fraction(0)),
        "sources": sorted({one.energy["source"] for one in read}),
        "machine_time_percent": 100 * machine(read) / machine(pieces),
    }


def runs_of(pieces: Iterable[Piece]) -> list[list[Piece]]:
    runs: dict[str, list[Piece]] = {}
    for one in pieces:
        runs.setdefault(one.run, []).append(one)
    return list(runs.values())


def _run(account: Account, every: Sequence[Piece]) -> Figures:
    work = [one for one in every if one.kind != "idle"]
    unused, hourly = waited(every), account.hourly(every[0])
    steps = Counter(one.status for one in work if one.kind not in ("provision", "load"))
    held = max(span(every), machine(work))
    return {
        "run": every[0].run,
        "started": started(every),
        "device": every[0].device,
        "elapsed_seconds": span(every),
        "machine_seconds": machine(work),
        "idle_seconds": unused,
        "idle_cost": None if hourly is None else unused * hourly / 3600,
        "cost": None if hourly is None else held * hourly / 3600,
        "steps": {one: steps[one] for one in ("done", "failed", "interrupted", "open")},
        "failed_seconds": machine(one for one in work if one.status == "failed"),
        "interrupted_seconds": machine(one for one in work if one.status == "interrupted"),
    }


def _timeline(pieces: Sequence[Piece]) -> Figures | None:
    """The last run that trained something (or the last of all): as long as the run is."""
    if not pieces:
        return None
    trained = [one for one in pieces if (one.kind, one.status) == ("train", "done")]
    run = (trained or pieces)[-1].run
    every = [one for one in pieces if one.run == run]
    first = min(one.begin for one in every)
    return {
        "run": run,
        "started": started(every),
        "elapsed_seconds": span(every),
        "bars": [
            _stretch(one, first)
            for one in sorted(every, key=lambda one: one.begin)
            if one.kind != "idle"
        ],
    }


def started(every: Sequence[Piece]) -> str:
    """On the clock on the wall, which is looked at once in a run."""
    first = min(one.begin for one in every) - every[0].at
    return (every[0].utc + timedelta(seconds=float(first))).isoformat(timespec="seconds")


def _stretch(one: Piece, first: Fraction) -> Mapping[str, Any]:
    return {
        "step": one.step,
        "status": one.status,
        "start_seconds": one.begin - first,
        "seconds": one.seconds,
        "share": one.share,
        "tokens": one.tokens,
        "error": one.error,
    }
