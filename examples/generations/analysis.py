"""Tables of a study: every arm against COMB trained again, by task and pooled, and what it cost.

    python examples/generations/analysis.py OUT

Reads what study.py wrote, needs no model and no GPU. Writes OUT/generations.txt (all tables) and
OUT/generations.md (those that the README of this folder asks about, as Markdown).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from resampling import (
    RESAMPLES,
    Cells,
    Floats,
    Results,
    Seeds,
    System,
    by_scenario,
    interval_of,
    mean_cells,
    minus,
    over_languages,
)

BACKWARD = 2.5
"""Work of training on a token, in that of reading it: 5 FLOP a parameter against 2, base frozen."""
WEIGHTS = ("0", "average", "mean", "0.5", "1", "by_metric", "by_nll")
SHOWN = {
    "0": "trunk alone",
    "average": "average of trunk and branches",
    "mean": "mean of the branches",
    "0.5": "weight .5",
    "1": "weight 1",
    "by_metric": "weight chosen by the metric",
    "by_nll": "weight chosen by NLL",
}
SCENARIOS = {
    "update": "A language is updated (each in turn, from a third of its rows)",
    "add": "A language is added (each in turn)",
    "several": "Two and three languages are updated in one release, apart",
    "in-turn": "The same languages, one after the other, in both orders",
    "share": "Everything at once: a trunk of a share of the rows, every language a branch from it",
    "sync": "Everything at once: languages apart, that meet in their mean 2 and 4 times",
    "month": "Half a year, a language a month, against COMB trained again every month",
}


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, and rows of cells; the first column is text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""

    def text(self) -> str:
        """Columns in line, for a terminal."""
        cells = [self.columns, *self.rows]
        widths = [max(len(row[at]) for row in cells) for at in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if at == 0 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([self.title, "-" * len(self.title), *lines, *self._notes(), ""])

    def markdown(self) -> str:
        """A Markdown table under a heading."""
        rule = "|" + "---|" * len(self.columns)
        rows = ["| " + " | ".join(row) + " |" for row in self.rows]
        head = "| " + " | ".join(self.columns) + " |"
        return "\n".join([f"### {self.title}", "", head, rule, *rows, "", *self._notes(), ""])

    def _notes(self) -> list[str]:
        return [self.note] if self.note else []


class Analysis:
    """Differences to COMB, by task, scenario, way of training and weight."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def seeds(self, task: str) -> tuple[int, ...]:
        """The seeds with which COMB was scored."""
        known = self.results.answers
        found = {one.seed for one in known if one.task == task and one.name == "comb"}
        return tuple(sorted(found))

    def comb(self, task: str, seed: int, group: str, name: str) -> Cells | None:
        """COMB on all rows, of the arm's job if it trained one, or that of the arm's month."""
        if name.startswith("month/"):
            month = f"{name.rpartition('/')[0]}/comb"
            return self.results.cells(System(task, seed, "half-year", month, "1"))
        own = self.results.cells(System(task, seed, group, "comb", "1"))
        return own or self.results.cells(System(task, seed, "main", "comb", "1"))

    def difference(self, task: str, seed: int, group: str, name: str, which: str) -> Cells | None:
        """An arm less COMB; None where either was not scored."""
        label = self.results.label((task, seed, group, name), which)
        comb = self.comb(task, seed, group, name)
        if label is None or comb is None:
            return None
        ours = self.results.cells(System(task, seed, group, name, label))
        return ours and minus(ours, comb)

    def mean_difference(self, task: str, group: str, names: Sequence[str], which: str) -> Seeds:
        """The mean over these arms (each language in turn), for the seeds that have all of them."""
        found = {}
        for seed in self.seeds(task):
            each = [self.difference(task, seed, group, name, which) for name in names]
            if all(one is not None for one in each):
                found[seed] = mean_cells([one for one in each if one is not None])
        return found

    def arms(self, task: str) -> Iterator[tuple[str, str, str, list[str]]]:
        """(scenario, way, group, arms) of a task; every month and every order is an arm."""
        for group in ("main", "several", "half-year", "shares", "sync"):
            found = by_scenario(self.results.names(task, group))
            for (scenario, way), arms in sorted(found.items()):
                if way != "comb":
                    yield scenario, way, group, [arms[what] for what in sorted(arms)]

    def cost(self, task: str, names: Sequence[str]) -> tuple[float, float, float] | None:
        """Training, training with test, and with the choice on dev too, as shares of COMB's."""
        shares = []
        for seed in self.seeds(task):
            comb = self.results.trainings.get((task, seed, "main", "comb"))
            for name in names:
                own = self.results.trainings.get((task, seed, "main", name.replace("/", "-")))
                if comb and own:
                    shares.append(self._shares(task, comb["tokens"], own["tokens"], name))
        return tuple(np.mean(shares, axis=0)) if shares else None  # type: ignore[return-value]

    def set_up_cost(
        self, task: str, group: str, names: Sequence[str]
    ) -> tuple[float, float, float] | None:
        """Training, training with test, and the trainings' critical path, as shares of COMB's."""
        shares = []
        for seed in self.seeds(task):
            comb = self.results.trainings.get((task, seed, group, "comb"))
            for name in names:
                paid = self.results.paid((task, seed, group, name))
                if comb and paid:
                    train, test, _ = self._shares(task, comb["tokens"], paid[0], name)
                    shares.append((train, test, paid[1] / comb["tokens"]))
        return tuple(np.mean(shares, axis=0)) if shares else None  # type: ignore[return-value]

    def _shares(self, task: str, comb: int, own: int, name: str) -> tuple[float, float, float]:
        tokens = self.results.tokens
        test, dev = tokens.get((task, "test"), 0), tokens.get((task, "dev"), 0)
        tried = next(
            (
                len(c["dev"])
                for (t, _, _, n), c in self.results.choices.items()
                if (t, n) == (task, name)
            ),
            0,
        )
        whole = BACKWARD * comb + test
        once = BACKWARD * own + test
        return own / comb, once / whole, (once + tried * dev) / whole


def worst(seeds: Seeds, languages: Sequence[str]) -> tuple[str, str]:
    """The language with the lowest difference, and those certainly below 0, and by 3 points."""
    found = {one: interval_of(over_languages(seeds, "points", [one])) for one in languages}
    lowest = min(found, key=lambda one: found[one].value)
    below = [" ".join(one for one in languages if found[one].high < limit) for limit in (0, -3)]
    return f"{lowest} {found[lowest].text()}", "; ".join(one or "none" for one in below)


def scenario_table(analysis: Analysis, task: str, scenario: str) -> Table | None:
    """One scenario of one task: every way and weight, less COMB trained again.

    Updates and additions are means over the language that changes; other arms stand alone.
    """
    rows: list[tuple[str, ...]] = []
    each = scenario in EACH
    for found, way, group, names in analysis.arms(task):
        if found == scenario:
            for some in [names] if each else [[name] for name in names]:
                about = way if each else f"{some[0].split('/')[1]}, {way}"
                rows += _rows_of(analysis, task, group, some, about)
    if not rows:
        return None
    if each:
        rows += _equal_rows(analysis, task)
    costs = (*COSTS[:2], "critical path") if scenario in SET_UP else COSTS
    columns = ("", "seeds", "points", "NLL", "worst language", "below 0; by 3", *costs)
    return Table(f"{task}: {SCENARIOS[scenario]}", columns, rows)


def _rows_of(
    analysis: Analysis, task: str, group: str, names: Sequence[str], about: str
) -> Iterator[tuple[str, ...]]:
    """Every weight of these arms, in the mean over them."""
    set_up = group in ("shares", "sync")
    cost = analysis.set_up_cost(task, group, names) if set_up else analysis.cost(task, names)
    alone = about == "continued"
    for which in ("1",) if alone else WEIGHTS:
        if seeds := analysis.mean_difference(task, group, names, which):
            name = "new rows alone" if alone else f"{about}, {SHOWN[which]}"
            paid = None if which == "0" else cost
            chosen = set_up or which.startswith("by_")
            yield name, *_cells(seeds, analysis.results.languages(task), paid, chosen=chosen)


EACH = ("update", "add")
"""Scenarios in which every language changes in turn."""
SET_UP = ("share", "sync")
"""Scenarios in which everything is trained, in another way than COMB."""
COSTS = ("train", "+ test", "+ choice")


def _cells(
    seeds: Seeds,
    languages: Sequence[str],
    cost: tuple[float, float, float] | None,
    *,
    chosen: bool = False,
) -> tuple[str, ...]:
    points = interval_of(over_languages(seeds, "points"))
    losses = interval_of(over_languages(seeds, "nll"))
    shares = [f"{share:.0%}" for share in cost] if cost else ["", "", ""]
    shares[2] = shares[2] if chosen else ""
    return (str(len(seeds)), points.text(), losses.text(3), *worst(seeds, languages), *shares)


def _equal_rows(analysis: Analysis, task: str) -> list[tuple[str, ...]]:
    """COMB from the base with as many rows seen as a branch."""
    rows = []
    for way in ("branch", "lean"):
        seeds = analysis.mean_difference(task, "main", [f"equal/{way}"], "1")
        if seeds:
            cost = analysis.cost(task, [f"equal/{way}"])
            name = f"COMB at the compute of {way}"
            rows.append((name, *_cells(seeds, analysis.results.languages(task), cost)))
    return rows


def set_up_table(analysis: Analysis) -> Table:
    """COMB itself and the paper's way, in points."""
    rows = []
    for task in analysis.results.tasks:
        systems = [("COMB", "main", "comb", "1")]
        systems += [
            (f"paper, {SHOWN[which].replace('weight ', '')}", "paper", "paper", which)
            for which in ("by_metric", "by_nll")
        ]
        for name, group, arm, which in systems:
            values, gaps = {}, {}
            for seed in analysis.seeds(task):
                label = analysis.results.label((task, seed, group, arm), which)
                cells = label and analysis.results.cells(System(task, seed, group, arm, label))
                gap = analysis.difference(task, seed, group, arm, which)
                if cells and gap:
                    values[seed], gaps[seed] = cells, gap
            if values:
                points, losses = (over_languages(values, what) for what in ("points", "nll"))
                each = ", ".join(
                    f"{np.mean([cell.points[0] for cell in values[seed].values()]):.1f}"
                    for seed in sorted(values)
                )
                rows.append(
                    (
                        f"{task}: {name}",
                        f"{points[0]:.1f}",
                        f"{losses[0]:.3f}",
                        interval_of(over_languages(gaps, "points")).text(),
                        each,
                    )
                )
    columns = ("", "points", "NLL", "less COMB", "each seed")
    return Table("Set-up: everything at once, and the paper's way", columns, rows)


def pooled_table(analysis: Analysis) -> Table:
    """The mean over the tasks, for updates and additions."""
    rows = []
    for scenario in EACH:
        for way in ("lean or branch", "branch", "continued"):
            for which in WEIGHTS if way != "continued" else ("1",):
                found = _by_task(analysis, scenario, way, which)
                if found:
                    name = f"{scenario}: {way}, {SHOWN[which]}"
                    if way == "continued":
                        name = f"{scenario}: new rows alone"
                    rows.append((name, *_pooled(found)))
    columns = ("", "tasks", "seeds", "points", "not 1 below", "NLL")
    note = "'not 1 below': whether the interval lies above -1. 'lean or branch': the way at 30 %."
    return Table("Pooled over tasks, less COMB trained again", columns, rows, note)


def pooled_set_up_table(analysis: Analysis) -> Table | None:
    """The mean over the tasks, for every share and every number of rounds."""
    found = {
        (scenario, names[number].split("/")[1], way if scenario == "sync" else "lean or branch")
        for task in analysis.results.tasks
        for scenario, way, _, names in analysis.arms(task)
        if scenario in SET_UP
        for number in range(len(names))
    }
    rows = []
    for scenario, what, way in sorted(found):
        for which in WEIGHTS:
            if tasks := _by_task(analysis, scenario, way, which, what):
                name = f"{scenario}: {what}, {way}, {SHOWN[which]}"
                rows.append((name, *_pooled(tasks)))
    columns = ("", "tasks", "seeds", "points", "not 1 below", "NLL")
    title = "Everything at once in other ways, pooled over tasks, less COMB"
    return Table(title, columns, rows) if rows else None


def _by_task(
    analysis: Analysis, scenario: str, way: str, which: str, what: str | None = None
) -> dict[str, Seeds]:
    """Each task's difference, in the mean over whatever changed, or of `what` alone."""
    found = {}
    for task in analysis.results.tasks:
        ways = {
            one: (group, [name for name in names if what in (None, name.split("/")[1])])
            for sc, one, group, names in analysis.arms(task)
            if sc == scenario
        }
        chosen = way if way != "lean or branch" else "lean" if "lean" in ways else "branch"
        if chosen not in ways or not ways[chosen][1]:
            continue
        labelled = which
        if which == "by_metric" and not _has_metric_choice(analysis, task):
            labelled = "by_nll"
        seeds = analysis.mean_difference(task, *ways[chosen], labelled)
        if seeds:
            found[task] = seeds
    return found


def _has_metric_choice(analysis: Analysis, task: str) -> bool:
    lines = [line for about, line in analysis.results.choices.items() if about[0] == task]
    return any("by_metric" in line for line in lines)


def _pooled(found: dict[str, Seeds]) -> tuple[str, ...]:
    def mean(what: str) -> Floats:
        return np.asarray(
            np.mean([over_languages(seeds, what) for seeds in found.values()], axis=0)
        )

    points = interval_of(mean("points"))
    seeds = "/".join(str(len(one)) for one in found.values())
    verdict = "yes" if points.low > -1 else "no"
    return (str(len(found)), seeds, points.text(), verdict, interval_of(mean("nll")).text(3))


def tables(analysis: Analysis) -> tuple[list[Table], list[Table]]:
    """Those that answer the questions, and all the others."""
    first = [set_up_table(analysis), pooled_table(analysis)]
    first += [table] if (table := pooled_set_up_table(analysis)) else []
    for task in analysis.results.tasks:
        wanted = (scenario_table(analysis, task, one) for one in SCENARIOS)
        first += [table for table in wanted if table]
    return first, [table for task in analysis.results.tasks for table in _each(analysis, task)]


def _each(analysis: Analysis, task: str) -> Iterator[Table]:
    """Every language that changed beside every language that was scored."""
    languages = analysis.results.languages(task)
    for scenario, way, group, names in analysis.arms(task):
        if scenario not in EACH or way == "continued":
            continue
        for which in ("0.5", "1", "by_nll"):
            rows = []
            for name in names:
                seeds = analysis.mean_difference(task, group, [name], which)
                if seeds:
                    each = [over_languages(seeds, "points", [one]) for one in languages]
                    rows.append((name.split("/")[1], *(interval_of(one).text() for one in each)))
            if rows:
                title = f"{task}: {scenario}, {way}, {SHOWN[which]}: what changed, in each language"
                yield Table(title, ("changed", *languages), rows)


HEAD = """Differences are less COMB trained again on all rows, with the same seed; points of the
task's first metric (macro-F1, accuracy, ROUGE-L) and NLL of the right answer (lower is better),
means over languages; 95 % intervals of {resamples:,} resamples: rows within languages, shared by
all systems, and seeds outermost. Three seeds show little of how trainings vary: their share of an
interval is too narrow by about a fifth. Costs are tokens, a trained one counts as {backward:g} read
ones, as shares of COMB's training with its test. "Below": languages whose interval lies wholly
below 0, and below -3, not corrected for looking at many. "Chosen by the metric" is by NLL where
texts are written (summary).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("results", type=Path, help="folder that study.py wrote")
    parser.add_argument("--into", type=Path, help="folder for the tables, instead of RESULTS")
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    options = parser.parse_args(arguments)
    analysis = Analysis(Results(options.results, options.resamples))
    if not analysis.results.answers:
        print(f"error: there are no results in {options.results}", file=sys.stderr)
        return 2
    first, others = tables(analysis)
    head = HEAD.format(resamples=options.resamples, backward=BACKWARD)
    into = options.into or options.results
    into.mkdir(parents=True, exist_ok=True)
    text = "\n".join([head, *(table.text() for table in (*first, *others))])
    (into / "generations.txt").write_text(text, encoding="utf-8")
    markdown = "\n".join(["# Generations", "", head, *(table.markdown() for table in first)])
    (into / "generations.md").write_text(markdown, encoding="utf-8")
    print("\n".join(table.text() for table in first))
    return 0


if __name__ == "__main__":
    sys.exit(main())
