"""Every system's scores in every language, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report.blocks import SYMBOLS, Block, Cell, Figure, Table, plain
from koinize.report.figures import ScoreRow, SystemRow, Task
from koinize.report.lookup import (
    column,
    languages_and_mean,
    main_systems,
    other_systems,
    score,
    verdict,
    with_interval,
)
from koinize.report.section import TaskSection
from koinize.report.svg import Mark, dots, scale_over


class Quality(TaskSection):
    """Per task: a dot plot by language, then a table per metric."""

    title = "Quality"
    order = 20

    def of_task(self, task: Task) -> Sequence[Block]:
        """Scores on test; the choice on dev has its own section."""
        return [*_figure(task), *_tables(task)]


def _figure(task: Task) -> list[Block]:
    metric = task["metrics"][0]
    systems = main_systems(task)
    panels = []
    for language in languages_and_mean(task):
        pairs = [(one, score(task, "test", metric, one["name"], language)) for one in systems]
        if found := [(system, row) for system, row in pairs if row]:
            panels.append((language, found))
    if not panels:
        return []
    ends = [end for _, rows in panels for _, row in rows for end in (row["low"], row["high"])]
    scale = scale_over(ends, bounds=(0.0, 100.0))
    drawn = tuple(
        (
            language or f"mean of {len(task['languages'])} languages",
            dots(
                [_mark(task, system, row) for system, row in rows],
                scale,
                f"{metric} of each system, {column(language)}",
            ),
        )
        for language, rows in panels
    )
    caption = (
        f"{metric} on test, in points, with 95 % intervals (bootstrap over rows). Intervals of two "
        "systems overlap more easily than the interval of their difference contains 0: compare "
        "systems under Verdicts."
    )
    return [Figure(caption, drawn)]


def _mark(task: Task, system: SystemRow, row: ScoreRow) -> Mark:
    text, ends = with_interval(row)
    reference = system["name"] == task["reference"]
    return Mark(
        name=system["name"],
        value=row["value"],
        low=row["low"],
        high=row["high"],
        figures=f"{text} {ends}",
        tooltip=f"{system['name']}: {text} {ends}, {row['n']} rows",
        tone="strong" if system["chosen"] else "reference" if reference else "",
        shape="dot" if system["chosen"] else "diamond" if reference else "ring",
    )


def _tables(task: Task) -> list[Block]:
    main, others = main_systems(task), other_systems(task)
    blocks: list[Block | None] = [_table(task, metric, main) for metric in task["metrics"]]
    blocks.append(_table(task, task["metrics"][0], others, "the other systems, "))
    return [block for block in blocks if block]


def _table(task: Task, metric: str, systems: Sequence[SystemRow], which: str = "") -> Table | None:
    languages = languages_and_mean(task)
    rows: list[tuple[Cell, ...]] = []
    chosen = set()
    for system in systems:
        found = [score(task, "test", metric, system["name"], one) for one in languages]
        if any(found):
            if system["chosen"]:
                chosen.add(len(rows))
            cells = zip(languages, found, strict=True)
            body = (_cell(task, metric, system["name"], one, row) for one, row in cells)
            rows.append((plain(system["name"]), *body))
    if not rows:
        return None
    signs = ", ".join(f"{sign} {word}" for word, sign in SYMBOLS.items())
    against = f"; against {task['reference']}: {signs}"
    judged = any(row["metric"] == metric for row in task["verdicts"])
    caption = f"{which}{metric} on test, in points, with 95 % intervals"
    return Table(
        columns=("system", *(_heading(task, metric, one) for one in languages)),
        rows=tuple(rows),
        caption=caption + (against if judged else ""),
        numbers=frozenset(range(1, len(languages) + 1)),
        highlight=frozenset(chosen),
    )


def _heading(task: Task, metric: str, language: str | None) -> str:
    """The language with its number of rows, where all systems were scored on as many."""
    counts = {
        row["n"]
        for row in task["scores"]
        if (row["split"], row["metric"], row["language"]) == ("test", metric, language)
    }
    return f"{column(language)} (n = {counts.pop()})" if len(counts) == 1 else column(language)


def _cell(task: Task, metric: str, system: str, language: str | None, row: ScoreRow | None) -> Cell:
    text, ends = with_interval(row)
    found = verdict(task, metric, system, task["reference"], language) if language else None
    title = f"{row['n']} rows" if row else ""
    if not found:
        return Cell(text, ends, title=title)
    word = found["verdict"]
    said = f"{title}, {word} against {task['reference']}"
    return Cell(f"{SYMBOLS[word]} {text}", ends, word, said)


section = Quality()
