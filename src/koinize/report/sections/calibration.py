"""Are the probabilities of a classifier's answers to be believed?"""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report.blocks import Block, Cell, Figure, Paragraph, Table, plain
from koinize.report.calibration import is_shown
from koinize.report.figures import Calibration, Task
from koinize.report.formats import interval, points
from koinize.report.reliability import reliability
from koinize.report.section import TaskSection

RULE = (
    "The expected calibration error is how far the probabilities of answers lie from the share "
    "that is right, on average. Few rows make it too large: it is corrected for that, and "
    "miscalibrated is only what a calibrated model would show in less than 2.5 % of draws."
)
UNKNOWN = "Scores of the labels were not recorded, so nothing is known of calibration."


class Calibrated(TaskSection):
    """Per task with fixed labels: reliability diagrams, and the error in each language."""

    title = "Calibration"
    order = 27
    rule = RULE

    def of_task(self, task: Task) -> Sequence[Block]:
        """Nothing where no labels are fixed, or nobody was tested."""
        if not task["answers"]:
            return []
        found = task["calibration"]
        return [_figure(task), _table(found)] if found else [Paragraph(UNKNOWN)]


def _figure(task: Task) -> Figure:
    several = len(task["languages"]) > 1
    found = [one for one in task["calibration"] if not several or one["language"] is None]
    panels = tuple(
        (
            f"{one['system']}, {one['n']} rows",
            reliability(one["bins"], f"Hit rate of {one['system']} over its probabilities"),
        )
        for one in found
    )
    caption = (
        "Share of answers that are right, in percent, over their probability; larger dots hold "
        "more rows. Each dot of a calibrated model lies on its bar in 95 % of draws."
    )
    return Figure(caption, panels, table=_bins(found))


def _bins(found: Sequence[Calibration]) -> Table:
    rows = tuple(
        (
            plain(one["system"]),
            plain(points(some["confidence"])),
            plain(points(some["accuracy"])),
            plain(interval(some["calibrated_low"], some["calibrated_high"])),
            plain(some["n"]),
        )
        for one in found
        for some in one["bins"]
    )
    columns = ("system", "probability", "right", "if calibrated", "n")
    return Table(columns, rows, "answers by their probability, in percent", frozenset({1, 2, 3, 4}))


def _table(found: Sequence[Calibration]) -> Table:
    return Table(
        columns=(
            "system",
            "probability",
            "right",
            "calibration error",
            "corrected",
            "if calibrated",
            "verdict",
        ),
        rows=tuple(_row(one) for one in found),
        caption="on test, in points: mean probability of the answers and share that is right, the "
        "expected calibration error over ten bins as counted and corrected for few rows, and what "
        "a calibrated model would show",
        numbers=frozenset({1, 2, 3, 4, 5}),
    )


def _row(one: Calibration) -> tuple[Cell, ...]:
    return (
        Cell(f"{one['system']}: {one['language'] or 'all rows'}", f"n = {one['n']}"),
        plain(points(one["confidence"])),
        plain(points(one["accuracy"])),
        plain(points(one["error"])),
        Cell(points(one["corrected"]), interval(one["low"], one["high"])),
        Cell(points(one["calibrated"]), f"up to {points(one['calibrated_high'])}"),
        _verdict(one),
    )


def _verdict(one: Calibration) -> Cell:
    if is_shown(one["error"], one["calibrated_high"]):
        return Cell("miscalibrated", tone="strong")
    return Cell("not shown", "may be calibrated")


section = Calibrated()
