"""The answer first: which merge, how it compares in each language, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.report._blocks import Block, Cell, Facts, Heading, Paragraph, Table, verdict_cell
from koinize.report._formats import count, duration, listing, points, saving
from koinize.report._lookup import (
    Row,
    Task,
    by_verdict,
    chosen_verdicts,
    difference_with_interval,
    individual,
    named,
    score,
    verdict,
    with_interval,
)
from koinize.report._section import Results, Section


class Summary(Section):
    """One paragraph, three figures and one table per task."""

    title = "Summary"
    order = 0

    def data(self, results: Results) -> Sequence[Block]:
        """What a reader with one minute needs."""
        blocks: list[Block] = []
        for task in results["tasks"]:
            if heading := named(results["tasks"], task):
                blocks.append(Heading(heading))
            blocks.append(Paragraph(_choice(task), "strong"))
            if task["chosen"]:
                blocks += [Paragraph(text) for text in _comparisons(task)]
                blocks += [Facts(_facts(task)), _table(task)]
        return blocks


def _choice(task: Task) -> str:
    if not task["chosen"]:
        return "No merge has been chosen yet."
    candidates = [one for one in task["systems"] if one["kind"] == "candidate"]
    distinct = sum(one["same_as"] is None for one in candidates)
    among = count(distinct, "candidate")
    if distinct < len(candidates):
        among = f"{count(len(candidates), 'candidate')}, {distinct} of them distinct"
    metric = task["metrics"][0]
    mean = task["selection"][0]["mean"]
    reached = f", where it reached {points(mean['value'])}" if mean else ""
    return f"The merge {task['chosen']} was chosen from {among}, by {metric} on dev{reached}."


def _comparisons(task: Task) -> list[str]:
    """One sentence per reference."""
    return [
        sentence
        for reference in _references(task)
        if (sentence := _comparison(task, reference, chosen_verdicts(task, reference)))
    ]


def _references(task: Task) -> list[str]:
    own = individual(task)
    return list(dict.fromkeys([task["reference"], *([own] if own else [])]))


def _comparison(task: Task, reference: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    groups = by_verdict(rows)
    if len(groups) == 1 and len(rows) == len(task["languages"]) > 1:
        said = f"{next(iter(groups))} in every language"
    else:
        said = "; ".join(f"{name} in {listing(languages)}" for name, languages in groups.items())
    margin = task["margins"][task["metrics"][0]]
    who = (
        f"{reference}, each language's own adapter," if reference == individual(task) else reference
    )
    return f"On test against {who} with a margin of {margin:g} points: {said}."


def _facts(task: Task) -> tuple[tuple[str, str, str], ...]:
    return (_quality_fact(task), _setup_fact(task), _update_fact(task))


def _quality_fact(task: Task) -> tuple[str, str, str]:
    reference = task["reference"]
    groups = by_verdict(chosen_verdicts(task, reference))
    passed = len(groups.get("better", [])) + len(groups.get("not worse", []))
    judged = sum(len(languages) for languages in groups.values())
    label = f"Quality: at least as good as {reference}"
    if not judged:
        return label, "–", f"nothing to compare: {reference} was not evaluated, or no margin is set"
    explained = [
        f"{name}: {listing(groups[name])}" for name in ("worse", "inconclusive") if name in groups
    ]
    noun = "language" if judged == 1 else "languages"
    return label, f"{passed} of {judged} {noun}", "; ".join(explained) or "shown within the margin"


def _setup_fact(task: Task) -> tuple[str, str, str]:
    costs = task["costs"]
    combined, merged, less = costs["combined"], costs["merged"], costs["savings"]
    label = f"Set-up: machine time against {task['reference']}"
    if not (combined and merged):
        return label, "–", "not all of the work stands in the ledger"
    machine = f"{_machine(merged)} against {_machine(combined)}, choosing not counted"
    wall = f"wall time with one machine per language: {saving(less['parallel'])} (derived)"
    return label, saving(less["machine"]), f"{machine}; {wall}"


def _update_fact(task: Task) -> tuple[str, str, str]:
    label = "Update of one language: machine time"
    combined, updates = task["costs"]["combined"], task["costs"]["updates"]
    amounts = [one["amount"] for one in updates]
    if combined is None or None in amounts:
        return label, "–", "not all of the work stands in the ledger"
    mean = sum(one["machine_seconds"] for one in amounts) / len(amounts)
    less = 100 * (1 - mean / combined["machine_seconds"]) if combined["machine_seconds"] else None
    said = f"{duration(mean)} for a training and the merges, against {_machine(combined)}"
    return label, saving(less), f"{said}; mean of {count(len(amounts), 'language')}"


def _machine(amount: Row) -> str:
    return duration(amount["machine_seconds"])


def _table(task: Task) -> Table:
    metric, references = task["metrics"][0], _references(task)
    columns = ["language", str(task["chosen"])]
    for reference in references:
        columns += [reference, f"merge − {reference}", "verdict"]
    rows = tuple(_language(task, metric, one, references) for one in task["languages"])
    return Table(
        columns=tuple(columns),
        rows=rows,
        caption=f"{metric} on test, in points, with 95 % intervals",
        numbers=frozenset(i for i in range(1, len(columns)) if columns[i] != "verdict"),
    )


def _language(
    task: Task, metric: str, language: str, references: Sequence[str]
) -> tuple[Cell, ...]:
    ours = score(task, "test", metric, task["chosen"], language)
    n = f"{ours['n']} rows" if ours else ""
    cells = [Cell(language, n), Cell(*with_interval(ours), "strong")]
    for reference in references:
        found = verdict(task, metric, task["chosen"], reference, language)
        cells.append(Cell(*with_interval(score(task, "test", metric, reference, language))))
        cells.append(Cell(*difference_with_interval(found)))
        cells.append(verdict_cell(found["verdict"]) if found else Cell("–"))
    return tuple(cells)


section = Summary()
