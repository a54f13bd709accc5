"""What an update of a language takes against retraining COMB, both sides paying for the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from koinize.ledger.scopes import SCOPES, WORDS, Scope
from koinize.report.blocks import Block, Cell, Heading, Paragraph, Table, plain, reading
from koinize.report.cost_figures import BreakEven, Range, ScopeRow, TaskCosts
from koinize.report.figures import Results, Task
from koinize.report.formats import (
    DASH,
    count,
    duration,
    listing,
    money,
    saving,
    saving_between,
    share,
    signed,
)
from koinize.report.lookup import mean_update, named
from koinize.report.section import Section

SAME = (
    "Both sides pay for the same things: loading the model, training and, on the merged side, the "
    "merge; then the scores on test, of what would be released and of COMB; then, on the merged "
    "side, choosing the recipe anew. What only this report wants is in none of them. A worker "
    "that waits saves nothing, so machine time and cost say what was saved."
)
MARKS = (
    "Measured: one run did this and trained nothing else of the task. Derived: put together from "
    "work that was measured in several runs or among other trainings. Estimated: from the time of "
    "other work. In each, loading the model took what it took on average in all runs."
)


BETWEEN = (
    "In parentheses stands where a saving lies in at least 95 of 100 cases, as far as it depends "
    "on that; where too much of the work was done only once there is no such interval."
)
VARIED = {"train": "training", "merge": "merge", "evaluate": "scoring", "load": "loading"}


class Updates(Section):
    """Per task: the mean over languages in every scope, each language, and the break-even."""

    title = "Updates"
    order = 32

    def data(self, results: Results) -> Sequence[Block]:
        """Nothing of a trunk that no language left."""
        blocks: list[Block] = []
        for task in (one for one in results["tasks"] if one["costs"]["updates"]):
            if heading := named(results["tasks"], task):
                blocks.append(Heading(heading))
            currency = results["currency"]
            blocks += [_mean(task, currency), Paragraph(_varied(task["costs"])), _languages(task)]
            blocks.append(_break_even(task, currency))
        return [reading(f"{SAME} {MARKS}"), *blocks] if blocks else []


def _mean(task: Task, currency: str | None) -> Table:
    """The mean over languages, a row for each scope."""
    found = [(scope, one) for scope in SCOPES if (one := mean_update(task, scope))]
    workers = _several(task["costs"])
    columns = ["both sides pay for", "elapsed", "machine time", "cost"]
    if workers:
        columns.append(f"elapsed, COMB by all {workers}")
    return Table(
        columns=tuple(columns),
        rows=tuple(_scope(scope, one, currency, workers) for scope, one in found),
        caption=f"update of one language against COMB retrained, mean over "
        f"{count(len(task['costs']['updates']), 'language')}"
        + ("; in the last column COMB is at best (estimated)" if workers else ""),
        numbers=frozenset(range(1, len(columns))),
    )


def _scope(scope: Scope, one: ScopeRow, currency: str | None, workers: int) -> tuple[Cell, ...]:
    ours, theirs, less = one["update"], one["combined"], one["savings"]
    head = Cell(WORDS[scope], f"update {one['update_is']}, COMB {one['combined_is']}")
    if ours is None or theirs is None:
        return Cell(WORDS[scope]), *[plain(DASH)] * (4 if workers else 3)
    cells = [
        _against(duration(ours["elapsed_seconds"]), duration(theirs["elapsed_seconds"])),
        _against(duration(ours["machine_seconds"]), duration(theirs["machine_seconds"])),
        _against(money(ours["cost"], currency), money(theirs["cost"], currency)),
    ]
    between = one["savings_interval"]
    savings = [
        "" if value is None else saving_between(value, ends)
        for value, ends in (
            (less["elapsed"], between["elapsed"]),
            (less["machine"], between["machine"]),
            (less["cost"], between["cost"]),
        )
    ]
    found = [Cell(text, said) for text, said in zip(cells, savings, strict=True)]
    best = [plain(saving(one["saved_at_best"]))] if workers else []
    return head, *found, *best


def _against(ours: str, theirs: str) -> str:
    return ours if ours == theirs == DASH else f"{ours} against {theirs}"


def _languages(task: Task) -> Table:
    """Machine time by language and scope; elapsed beneath."""
    rows = []
    for update in task["costs"]["updates"]:
        cells = [
            Cell(
                saving_between(one["savings"]["machine"], one["savings_interval"]["machine"]),
                _elapsed(one["savings"]["elapsed"], one["savings_interval"]["elapsed"]),
            )
            for one in update["scopes"]
        ]
        rows.append((plain(update["language"]), *cells))
    return Table(
        columns=("changed language", *(WORDS[one] for one in SCOPES)),
        rows=tuple(rows),
        caption="machine time of an update against COMB retrained",
        numbers=frozenset(range(1, len(SCOPES) + 1)),
        folded="What each language's update saves",
    )


def _elapsed(less: float | None, ends: Range) -> str:
    return "" if less is None else f"elapsed: {saving_between(less, ends)}"


def _varied(costs: TaskCosts) -> str:
    """How far seconds varied, of what both sides have most of; and what of it is not known."""
    rows = {one["kind"]: one for one in costs["variation"]}
    kinds = [(rows[kind], noun) for kind, noun in VARIED.items() if kind in rows]
    known = [
        f"{noun}s by {share(one['percent'] / 100)} ({one['steps']} of them)"
        for one, noun in kinds
        if one["percent"] is not None
    ]
    once = [noun for one, noun in kinds if one["percent"] is None]
    said = f"Seconds for the same amount of work varied here: {listing(known)}. " if known else ""
    if once:
        said += f"Of one {' or '.join(once)} alone nobody can tell how much it varies. "
    return said + BETWEEN


def _several(costs: TaskCosts) -> int:
    """The workers that might have trained COMB at once; 0 where there was one."""
    found = costs["combined_by_all_workers"]
    return found["workers"] if found and found["workers"] > 1 else 0


def _break_even(task: Task, currency: str | None) -> Table:
    """After how many updates of one language merging has paid back a dearer set-up."""
    rows: list[tuple[Cell, ...]] = []
    found = task["costs"]["break_even"]
    sides = (
        (WORDS["training"], found["training"]),
        ("with choosing and testing", found["choosing"]),
    )
    for said, one in sides:
        each = one["elapsed"], one["machine"], one["cost"]
        rows += [
            (plain(f"{said}: dearer set-up"), *_figures(each, "extra", currency)),
            (plain(f"{said}: saved per update"), *_figures(each, "saved", currency)),
            (Cell(f"{said}: paid back after", tone="strong"), *map(_paid_back, each)),
        ]
    comb = task["costs"]["combined_is"] or "unknown"
    return Table(
        columns=("break-even", "elapsed", "machine time", "cost"),
        rows=tuple(rows),
        caption="after how many updates of one language (mean over languages) merging has cost no "
        f"more than COMB trained anew each time, by one worker; COMB {comb}",
        numbers=frozenset({1, 2, 3}),
        highlight=frozenset({2, 5}),
    )


def _figures(
    clocks: Sequence[BreakEven | None], key: Literal["extra", "saved"], currency: str | None
) -> tuple[Cell, ...]:
    elapsed, machine, cost = (one[key] if one else None for one in clocks)
    return (
        plain(signed(elapsed, duration)),
        plain(signed(machine, duration)),
        plain(signed(cost, lambda amount: money(amount, currency))),
    )


def _paid_back(one: BreakEven | None) -> Cell:
    if one is None:
        return plain(DASH)
    if one["updates"] is None:
        return plain("never")
    if one["until"] is not None:
        return Cell("0", f"but dearer from update {one['until']} on")
    return plain(count(one["updates"], "update") if one["updates"] else "0: from the start")


section = Updates()
