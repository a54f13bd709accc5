"""Where all the machine time went: every interval once, idle and failed time included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from koinize.ledger import Interval, total
from koinize.report._costs import Accounts, choosing, merge_names, testing
from koinize.report._input import ReportInput, TaskInput


def breakdown(source: ReportInput, accounts: Accounts) -> list[dict[str, Any]]:
    """All machine time that the ledger knows, each second once, idle time included."""
    rows = [row for task in source.tasks for row in _task_rows(task, accounts)]
    counted = {id(one) for row in rows for one in row["work"]}
    standing = {id(one) for one in accounts.standing.values()}
    rest = [one for one in source.intervals if id(one) not in counted]
    here = [one for one in rest if id(one) in standing]
    gone = [one for one in rest if one.status == "done" and id(one) not in standing]
    rows += [
        _row("", "base model and other", "base", here),
        _row("", "superseded", "superseded", gone),
        _row("", "failed", "failed", [one for one in rest if one.status == "failed"]),
        _row("", "interrupted", "failed", [one for one in rest if one.status == "interrupted"]),
    ]
    plain = [
        {
            **{key: row[key] for key in ("task", "label", "kind")},
            "machine_seconds": amount["machine_seconds"],
            "cost": amount["cost"],
            "steps": amount["steps"],
        }
        for row in rows
        if (amount := accounts.amount(row["work"]))
    ]
    return plain + _idle_row(source, accounts)


def _task_rows(task: TaskInput, accounts: Accounts) -> list[dict[str, Any]]:
    """The work of one task by phase."""
    name = task.name
    merges, chosen = accounts.find(*merge_names(task)), choosing(task, accounts)
    tests = testing(task, accounts)
    own = {id(one) for one in [*merges, *chosen, *tests]}
    prefixes = (f"merge/{name}/", f"select/{name}/", f"evaluate/{name}/")
    rest = [one for prefix in prefixes for one in accounts.under(prefix) if id(one) not in own]
    return [
        *(
            _row(name, f"train {language}", "train", accounts.find(f"train/{name}/{language}"))
            for language in task.languages
        ),
        _row(name, "train COMB", "comb", accounts.find(f"train/{name}/comb")),
        _row(name, "merge the candidates", "merge", merges),
        _row(name, "choose on dev", "choose", chosen),
        _row(name, "MEAN: merge and choose", "merge", rest),
        _row(name, "evaluate on test", "test", tests),
    ]


def _row(task: str, label: str, kind: str, work: Iterable[Interval | None]) -> dict[str, Any]:
    return {"task": task, "label": label, "kind": kind, "work": [one for one in work if one]}


def _idle_row(source: ReportInput, accounts: Accounts) -> list[dict[str, Any]]:
    every = runs(source, accounts)
    if not every:
        return []
    costs = [one["idle_cost"] for one in every]
    return [
        {
            "task": "",
            "label": "idle",
            "kind": "idle",
            "machine_seconds": sum(one["idle_seconds"] for one in every),
            "cost": None if None in costs else sum(costs),
            "steps": 0,
        }
    ]


def runs(source: ReportInput, accounts: Accounts) -> list[dict[str, Any]]:
    """Every run, oldest first: elapsed from its first start to its last end, and what of it."""
    found: dict[str, list[Interval]] = {}
    for interval in source.intervals:
        found.setdefault(interval.run, []).append(interval)
    return [_run(name, work, accounts) for name, work in found.items()]


def _run(name: str, work: Sequence[Interval], accounts: Accounts) -> dict[str, Any]:
    started = min(one.started for one in work)
    end = max(one.started.timestamp() + float(one.seconds) for one in work)
    elapsed = round(end - started.timestamp(), 3)
    busy = float(total(work)[0])
    idle = max(0.0, round(elapsed - busy, 3))
    lost = {
        status: [one for one in work if one.status == status]
        for status in ("failed", "interrupted")
    }
    return {
        "run": name,
        "started": started.isoformat(timespec="seconds"),
        "device": work[0].device,
        "elapsed_seconds": elapsed,
        "machine_seconds": busy,
        "idle_seconds": idle,
        "idle_cost": accounts.cost_of_seconds(idle, work[0]),
        "cost": accounts.cost_of_seconds(max(elapsed, busy), work[0]),
        "steps": {
            status: sum(one.status == status for one in work)
            for status in ("done", "failed", "interrupted", "open")
        },
        **{f"{status}_seconds": float(total(some)[0]) for status, some in lost.items()},
    }


def timeline(source: ReportInput) -> dict[str, Any] | None:
    """The last run that trained something (or the last of all): which worker did what, and when."""
    if not source.intervals:
        return None
    trained = [one for one in source.intervals if one.kind == "train" and one.status == "done"]
    run = (trained or list(source.intervals))[-1].run
    work = sorted((one for one in source.intervals if one.run == run), key=lambda one: one.started)
    origin = work[0].started.timestamp()
    bars, free = [], list[float]()
    for interval in work:
        start = interval.started.timestamp() - origin
        lane = next((at for at, until in enumerate(free) if until <= start + 0.05), len(free))
        free[lane : lane + 1] = [start + float(interval.seconds)]
        bars.append(
            {
                "lane": lane,
                "step": interval.step,
                "kind": interval.kind,
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
        "started": work[0].started.isoformat(timespec="seconds"),
        "elapsed_seconds": round(max(free), 3),
        "lanes": len(free),
        "bars": bars,
    }
