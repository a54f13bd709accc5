"""Everything the report says, computed once, as plain values for JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from koinize.report.answer import when_stated
from koinize.report.collapsed import collapse_notes
from koinize.report.costs import Accounts
from koinize.report.drift import drift
from koinize.report.figures import Results, Task
from koinize.report.inference import inference
from koinize.report.input import ReportInput, TaskInput
from koinize.report.quality import Judged, system_row
from koinize.report.spending import around, breakdown, energy, runs, timeline
from koinize.report.updates import task_costs

FORMAT = 1


def results(source: ReportInput) -> Results:
    """All figures of a report. Raises InputError for rows that a metric or the gate cannot read."""
    accounts = Accounts(source)
    tasks = [_task(task, accounts) for task in source.tasks]
    found: Results = {
        "format": FORMAT,
        "project": source.project,
        "created": source.created,
        "version": source.version,
        "spec": source.spec,
        "prices": accounts.prices,
        "currency": accounts.currency,
        "tasks": tasks,
        "releases": [row for task in source.tasks if (row := drift(task, source.releases))],
        "costs": {
            "breakdown": breakdown(source, accounts),
            "around": around(source, accounts),
            "energy": energy(source),
            "runs": runs(source, accounts),
            "timeline": timeline(source),
        },
        "notes": [
            *source.notes,
            *_price_notes(source, accounts),
            *_share_notes(accounts),
            *_task_notes(tasks),
            *_margin_notes(tasks),
            *(
                note
                for pair in zip(source.tasks, tasks, strict=True)
                for note in collapse_notes(*pair)
            ),
        ],
    }
    plain: Results = json.loads(json.dumps(found, default=str))
    return plain


def _task(task: TaskInput, accounts: Accounts) -> Task:
    quality = Judged(task)
    return {
        "name": task.name,
        "kind": task.kind,
        "metrics": task.metrics,
        "labels": task.labels,
        "languages": task.languages,
        "margins": task.margins,
        "reference": task.reference,
        "changed_since": list(task.changed_since),
        "halved": task.halved,
        "chosen": quality.chosen.name if quality.chosen else None,
        "systems": [system_row(system) for system in task.systems],
        "inference": list(inference(task, accounts)),
        "interference": task.interference,
        **quality.results(),
        "costs": task_costs(task, accounts),
    }


def _margin_notes(tasks: Sequence[Task]) -> list[str]:
    return [
        f"{task['name']}: {when_stated(task)}"
        for task in tasks
        if (stated := task["stated"])
        and (stated["changed"] or stated["later"] or not stated["beforehand"])
    ]


def _price_notes(source: ReportInput, accounts: Accounts) -> list[str]:
    notes = []
    if len({price.get("currency") for price in accounts.prices}) > 1:
        notes.append("The ledger has prices in several currencies, so no cost is shown.")
    elif len(accounts.prices) > 1 and accounts.price_changed:
        notes.append("The price changed between runs: work is counted at the price of its time.")
    elif len(accounts.prices) > 1:
        notes.append("Machines differ in price: work is counted at the price of its machine.")
    if source.price and any(not one.price for one in source.intervals):
        notes.append("Work that was recorded without a price is counted at the project's price.")
    return notes


def _share_notes(accounts: Accounts) -> list[str]:
    if count := sum(one.is_share for one in accounts.standing.values()):
        return [
            f"Steps that a worker did at once with others: {count}. The seconds of each are a "
            "share of the worker's, of a training by tokens, of an evaluation an equal one."
        ]
    return []


def _task_notes(tasks: Sequence[Task]) -> list[str]:
    """What a reader must know before comparing two figures."""
    notes = []
    for task in tasks:
        seen: set[tuple[str, str]] = set()
        for row in task["signatures"]:
            place = row["split"], row["language"]
            if place in seen:
                notes.append(
                    f"{task['name']}: systems were scored on {row['language']} {row['split']} "
                    "under different signatures; their scores do not compare."
                )
            seen.add(place)
        notes += [
            f"{task['name']}: no margin above 0 is set for {metric}, so it has no verdicts."
            for metric in task["metrics"]
            if not task["margins"].get(metric)
        ]
    return notes
