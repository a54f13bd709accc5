"""Is the chosen merge as good as its references? Differences, margins and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev

from koinize.report.answer import when_stated
from koinize.report.blocks import (
    Block,
    Cell,
    Figure,
    Paragraph,
    Table,
    Tone,
    plain,
    verdict_cell,
)
from koinize.report.figures import JointRow, PooledRow, Task, VerdictRow
from koinize.report.formats import DASH, count, difference, interval, listing, points
from koinize.report.lookup import (
    chosen_verdicts,
    difference_with_interval,
    individual,
    joint,
    pooled,
    seeds,
    seeds_of,
    single,
    verdict,
)
from koinize.report.section import TaskSection
from koinize.report.svg import Mark, Shape, dots, scale_over

RULE = (
    "Parity has to be shown: the interval of the paired difference must stay above minus the "
    "margin, which koinize.yaml states, or else the metric. Better: all of it is above 0. Not "
    "worse: all of it is above minus the margin. Worse: all of it is below 0, and a loss of the "
    "whole margin is not excluded. Inconclusive: the rows do not decide. Where few rows differ a "
    "stricter test decides as well, so an interval above minus the margin may be inconclusive."
)
MEAN = "mean"
SHAPES: dict[str, Shape] = {
    "better": "up",
    "not worse": "dot",
    "worse": "down",
    "inconclusive": "ring",
}
LEGEND: tuple[tuple[Tone, str], ...] = (
    ("better", "▲ better · ● not worse"),
    ("worse", "▼ worse"),
    ("inconclusive", "○ inconclusive"),
)


class Verdicts(TaskSection):
    """Per task: a forest plot, the verdicts in figures, and every other system in one table."""

    title = "Verdicts"
    order = 10
    rule = RULE

    def of_task(self, task: Task) -> Sequence[Block]:
        """Nothing where nothing was compared."""
        if not task["verdicts"]:
            return []
        stated = Paragraph(f"{when_stated(task)} {_how_often(task)}", "muted")
        return [stated, *_figure(task), *_tables(task), *_others(task)]


def _how_often(task: Task) -> str:
    """What the intervals know of seeds."""
    if (several := seeds(task)) == 1:
        return "Every training was made with one seed: the intervals know nothing of other seeds."
    return (
        f"Every training of these comparisons was made with {several} seeds, but for systems "
        "that are marked with one seed. Differences are means "
        "over them, and their intervals have seeds as the outer level (Student's t with "
        f"{count(several - 1, 'degree')} of freedom: few seeds make them wide). The first seed is "
        "what is released."
    )


def _references(task: Task) -> list[str]:
    best = single(task)
    others = [individual(task), best["name"] if best else None]
    references = dict.fromkeys([task["reference"], *(one for one in others if one)])
    return [one for one in references if chosen_verdicts(task, one)]


def _figure(task: Task) -> list[Block]:
    metric = task["metrics"][0]
    panels = [(one, _named_rows(task, one)) for one in _references(task)]
    ends = [end for _, rows in panels for _, row in rows for end in (row["low"], row["high"])]
    if not ends:
        return []
    margin = task["margins"][metric]
    scale = scale_over([*ends, -margin, 0.0])
    drawn = tuple(
        (
            f"{task['chosen']} − {reference}",
            dots(
                [_mark(name, row) for name, row in rows],
                scale,
                f"Differences in {metric} between {task['chosen']} and {reference} by language",
                tolerated=margin,
            ),
        )
        for reference, rows in panels
    )
    caption = (
        f"Difference in {metric} on test, in points, with its 95 % interval (paired bootstrap over "
        f"rows{_outer(task)}). Not worse takes an interval that lies in the shaded range, above "
        f"−{margin:g}; the verdict says whether it suffices."
    )
    return [Figure(caption, drawn, LEGEND)]


def _outer(task: Task) -> str:
    return f", and {several} seeds" if (several := seeds(task)) > 1 else ""


def _named_rows(task: Task, reference: str) -> list[tuple[str, PooledRow]]:
    """The chosen merge by the selecting metric: the mean first, then every language."""
    mean = pooled(task, task["metrics"][0], task["chosen"], reference)
    rows: list[tuple[str, PooledRow]] = [(MEAN, mean)] if mean else []
    return rows + [(row["language"], row) for row in chosen_verdicts(task, reference)]


def _mark(name: str, row: PooledRow) -> Mark:
    text, ends = difference_with_interval(row)
    return Mark(
        name=f"{name}: {row['verdict']}",
        value=row["difference"],
        low=row["low"],
        high=row["high"],
        figures=f"{text} {ends}",
        tooltip=f"{name}: {text} {ends}, {row['n']} rows, {row['verdict']}",
        tone=row["verdict"].replace(" ", "-"),
        shape=SHAPES[row["verdict"]],
    )


def _tables(task: Task) -> list[Block]:
    """The chosen merge against each reference: the selecting metric in full, others in brief."""
    blocks: list[Block] = []
    for reference in _references(task):
        blocks.append(_selecting(task, reference))
        blocks += _by_seed(task, reference)
        rows = [
            (plain(metric), *_in_brief(task, metric, task["chosen"], reference))
            for metric in task["metrics"][1:]
        ]
        if any(task["margins"].get(metric) for metric in task["metrics"][1:]):
            caption = f"other metrics: {task['chosen']} minus {reference}, on test, in points"
            blocks.append(Table(("metric", *task["languages"]), tuple(rows), caption))
    return blocks


def _selecting(task: Task, reference: str) -> Table:
    metric, found = task["metrics"][0], chosen_verdicts(task, reference)
    rows: list[tuple[Cell, ...]] = [
        (
            plain(name),
            plain(difference(row["difference"])),
            plain(interval(row["low"], row["high"], signed=True)),
            plain(f"{row['margin']:g}"),
            plain(row["n"]),
            verdict_cell(row["verdict"]),
            plain(DASH if row["rows_needed"] is None else f"{row['rows_needed']:,}"),
        )
        for name, row in _named_rows(task, reference)
    ]
    together = joint(task, metric, task["chosen"], reference)
    if together and len(found) > 1:
        rows.append(_together(together, found))
    return Table(
        columns=("language", "difference", "interval", "margin", "n", "verdict", "rows to decide"),
        rows=tuple(rows),
        caption=f"{metric}: {task['chosen']} minus {reference}, on test, in points",
        numbers=frozenset({1, 2, 3, 4, 6}),
    )


def _by_seed(task: Task, reference: str) -> list[Block]:
    """The difference of each seed, where there are several."""
    found = _named_rows(task, reference)
    several = max((seeds_of(row) for _, row in found), default=1)
    if several == 1:
        return []
    rows = tuple(
        (
            plain(name),
            *(plain(difference(one)) for one in row["by_seed"]),
            plain(points(stdev(row["by_seed"]))),
        )
        for name, row in found
    )
    further = [f"seed {number}" for number in range(1, several)]
    caption = (
        f"{task['metrics'][0]}: {task['chosen']} minus {reference} with each seed, on test, in "
        "points"
    )
    columns = ("language", "released", *further, "standard deviation")
    return [Table(columns, rows, caption, numbers=frozenset(range(1, several + 2)))]


def _together(together: JointRow, found: Sequence[VerdictRow]) -> tuple[Cell, ...]:
    """All languages at once: not worse if not worse in each (Berger), better only by Holm."""
    rows = sum(row["n"] for row in found)
    title = f"intersection-union test, p = {together['p_value']:.4f}, {count(rows, 'row')}"
    better = f"better after Holm's correction: {listing(together['better']) or 'none'}"
    end = verdict_cell(together["verdict"], better, title)
    margin = plain(f"{found[0]['margin']:g}")
    return plain("every language"), plain(""), plain(""), margin, plain(rows), end, plain("")


def _others(task: Task) -> list[Block]:
    metric, reference = task["metrics"][0], task["reference"]
    judged = {row["system"] for row in task["verdicts"] if row["reference"] == reference}
    rows = tuple(
        (plain(_marked(task, system["name"])), *_in_brief(task, metric, system["name"], reference))
        for system in task["systems"]
        if system["name"] in judged and not system["chosen"]
    )
    caption = f"{metric}: every other system minus {reference}, on test, in points"
    return [Table(("system", *task["languages"]), rows, caption)] if rows else []


def _marked(task: Task, system: str) -> str:
    """The name of a system, and whether the first seed alone was compared where there are more."""
    rows = [one for one in task["verdicts"] if one["system"] == system]
    alone = seeds(task) > max(map(seeds_of, rows), default=1)
    return f"{system} (one seed)" if alone else system


def _in_brief(task: Task, metric: str, system: str | None, reference: str) -> tuple[Cell, ...]:
    found = (verdict(task, metric, system, reference, one) for one in task["languages"])
    return tuple(_brief(row) for row in found)


def _brief(row: VerdictRow | None) -> Cell:
    if row is None:
        return Cell(DASH)
    text, ends = difference_with_interval(row)
    return verdict_cell(row["verdict"], f"{text} {ends}", f"{row['n']} rows")


section = Verdicts()
