"""Where all the machine time went, failed and idle time included, and the last run over time."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report import svg
from koinize.report.blocks import Block, Figure, Paragraph, Table, Tone, plain
from koinize.report.cost_figures import Run, SpentRow, Stretch, Timeline
from koinize.report.figures import Results
from koinize.report.formats import count, duration, money
from koinize.report.section import Section
from koinize.report.svg import Bar, bars, lanes

LEGEND: tuple[tuple[Tone, str], ...] = (
    ("train", "train, one language"),
    ("comb", "train COMB"),
    ("merge", "merge"),
    ("choose", "choose on dev"),
    ("test", "evaluate on test"),
    ("base", "base model, loading, starting"),
    ("failed", "failed or interrupted"),
)


class Spending(Section):
    """Bars by step for the whole ledger, the last full run by worker, and a table of all runs."""

    title = "Where the time went"
    order = 40

    def data(self, results: Results) -> Sequence[Block]:
        """Nothing where the ledger is empty."""
        costs = results["costs"]
        if not costs["runs"]:
            return []
        return [
            _breakdown(results),
            *_timeline(costs["timeline"]),
            *_runs(costs["runs"], results["currency"]),
        ]


def _breakdown(results: Results) -> Figure:
    rows = results["costs"]["breakdown"]
    whole = sum(row["machine_seconds"] for row in rows)
    longest = max(row["machine_seconds"] for row in rows)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    panels = tuple(
        (
            task or "beside the tasks",
            bars(
                [_bar(row, whole, results["currency"]) for row in rows if row["task"] == task],
                longest,
                f"Machine time by step, {task or 'beside the tasks'}",
            ),
        )
        for task in tasks
    )
    caption = (
        f"Machine time of every step in the ledger, {duration(whole)} in all. Superseded: finished "
        "work on which the present results no longer stand. Idle: elapsed time of all runs less "
        "the machine time of what ran in them."
    )
    return Figure(caption, panels, table=_in_figures(rows, results["currency"]))


def _bar(row: SpentRow, whole: float, currency: str | None) -> Bar:
    share = f"{100 * row['machine_seconds'] / whole:.1f} %" if whole else ""
    time = duration(row["machine_seconds"])
    said = [time, share, count(row["steps"], "step") if row["steps"] else ""]
    if row["cost"] is not None:
        said.append(money(row["cost"], currency))
    return Bar(
        name=row["label"],
        value=row["machine_seconds"],
        figures=f"{time} · {share}",
        tooltip=f"{row['label']}: {', '.join(filter(None, said))}",
        tone=row["kind"],
    )


def _in_figures(rows: Sequence[SpentRow], currency: str | None) -> Table:
    body = tuple(
        (
            plain(" ".join(filter(None, (row["task"], row["label"])))),
            plain(duration(row["machine_seconds"])),
            plain(money(row["cost"], currency)),
            plain(row["steps"] or ""),
        )
        for row in rows
    )
    columns = ("work", "machine time", "cost", "steps")
    return Table(columns, body, "machine time by step", frozenset({1, 2, 3}))


def _timeline(run: Timeline | None) -> list[Block]:
    if not run:
        return []
    elapsed = run["elapsed_seconds"]
    stretches = [_stretch(one) for one in run["bars"]]
    ticks = [
        (elapsed * part / 4, duration(elapsed * part / 4) if part else "0") for part in range(5)
    ]
    drawing = lanes(
        stretches, run["lanes"], elapsed, ticks, f"Steps of run {run['run']} by worker over time"
    )
    caption = (
        f"The last full run, {run['run']}, begun {run['started']}: one lane per worker "
        f"({run['lanes']}), {duration(elapsed)} from left to right."
    )
    used = {one.tone for one in stretches}
    legend = tuple(entry for entry in LEGEND if entry[0] in used)
    return [Figure(caption, (("", drawing),), legend, wide=True)]


def _stretch(one: Stretch) -> svg.Block:
    lost = one["status"] in ("failed", "interrupted")
    because = f": {one['error']}" if one["error"] else ""
    return svg.Block(
        lane=one["lane"],
        start=one["start_seconds"],
        seconds=one["seconds"],
        name=one["name"],
        tooltip=f"{one['step']}: {duration(one['seconds'])}, {one['status']}{because}",
        tone="failed" if lost else one["tone"],
    )


def _runs(runs: Sequence[Run], currency: str | None) -> list[Block]:
    rows = tuple(
        (
            plain(run["started"][:16].replace("T", " ")),
            plain(run["run"]),
            plain(run["steps"]["done"]),
            plain(duration(run["elapsed_seconds"])),
            plain(duration(run["machine_seconds"])),
            plain(duration(run["idle_seconds"])),
            plain(duration(run["failed_seconds"] + run["interrupted_seconds"])),
            plain(money(run["cost"], currency)),
        )
        for run in runs
    )
    open_steps = sum(run["steps"]["open"] for run in runs)
    unfinished = [Paragraph(f"{count(open_steps, 'step')} not finished yet: counted as no time.")]
    table = Table(
        columns=(
            "run begun (UTC)", "run", "steps done", "elapsed", "machine time", "idle",
            "failed, interrupted", "cost of elapsed",
        ),
        rows=rows,
        caption="every run, the oldest first; machine time includes failed and interrupted work",
        numbers=frozenset(range(2, 8)),
    )  # fmt: skip
    return [table, *(unfinished if open_steps else [])]


section = Spending()
