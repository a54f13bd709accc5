"""What was released, and how far every language has moved since."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report.blocks import Block, Cell, Figure, Heading, Table, reading
from koinize.report.figures import Drift, ReleaseScore, Results
from koinize.report.formats import DASH, difference, interval, points
from koinize.report.lookup import named
from koinize.report.section import Section
from koinize.report.svg import Mark, scale_over, trend

RULE = (
    "Every release passed its comparison with the one before it. Small tolerated losses can add "
    "up, so each language is also compared with the first release that served it, on the test "
    "rows that both answered."
)


class Releases(Section):
    """Per task: a panel for each language, and the same in figures."""

    title = "Releases and drift"
    order = 45

    def data(self, results: Results) -> Sequence[Block]:
        """Nothing before the first promotion."""
        found = results["releases"]
        blocks: list[Block] = [reading(RULE)] if found else []
        for one in found:
            task = next(task for task in results["tasks"] if task["name"] == one["task"])
            if heading := named(results["tasks"], task):
                blocks.append(Heading(heading))
            blocks.append(_figure(one))
        return blocks


def _figure(found: Drift) -> Figure:
    by_language: dict[str, list[ReleaseScore]] = {}
    for row in found["scores"]:
        by_language.setdefault(row["language"], []).append(row)
    bounds = [end for row in found["scores"] for end in (row["low"], row["high"])]
    scale = scale_over(bounds, bounds=(0.0, 100.0))
    return Figure(
        caption=f"{found['metric']} on test by release, in points, with 95 % intervals; "
        "the level line is the first release",
        panels=tuple(
            (
                language,
                trend([_mark(row) for row in rows], scale, f"{language} over the releases"),
            )
            for language, rows in by_language.items()
        ),
        table=_table(found, by_language),
    )


def _mark(row: ReleaseScore) -> Mark:
    name = f"v{row['version']}"
    figures = f"{points(row['value'])} {interval(row['low'], row['high'])}"
    tooltip = f"{row['language']} {name}: {figures}, {row['n']} rows"
    return Mark(name, row["value"], row["low"], row["high"], figures, tooltip, "strong")


def _table(found: Drift, by_language: dict[str, list[ReleaseScore]]) -> Table:
    rows = []
    for release in found["releases"]:
        cells = [
            next((_cell(row) for row in scored if row["version"] == release["version"]), None)
            for scored in by_language.values()
        ]
        name = Cell(f"v{release['version']}", ", ".join(release["channels"]))
        rows.append((name, *(cell or Cell(DASH) for cell in cells)))
    return Table(
        columns=("release", *by_language),
        rows=tuple(rows),
        caption="the score, and beneath it the paired difference from the first release",
        numbers=frozenset(range(1, len(by_language) + 1)),
    )


def _cell(row: ReleaseScore) -> Cell:
    title = f"{interval(row['low'], row['high'])}, {row['n']} rows"
    since = row["drift"]
    if since is None:
        return Cell(points(row["value"]), title=title)
    below = f"{difference(since['difference'])} "
    below += interval(since["low"], since["high"], signed=True)
    return Cell(points(row["value"]), below, title=title)


section = Releases()
