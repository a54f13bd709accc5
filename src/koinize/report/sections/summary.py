"""The answer first: which merge, how it compares in each language, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence

from koinize.ledger.scopes import SCOPES
from koinize.report.answer import the_answer
from koinize.report.blocks import Block, Cell, Facts, Heading, Paragraph, Table, verdict_cell
from koinize.report.collapsed import said
from koinize.report.cost_figures import Amount
from koinize.report.figures import Results, Task, VerdictRow
from koinize.report.formats import DASH, count, duration, listing, points, saving, saving_between
from koinize.report.lookup import (
    by_verdict,
    chosen_verdicts,
    difference_with_interval,
    individual,
    is_reference,
    joint,
    mean_update,
    named,
    score,
    seeds,
    seeds_of,
    sharing,
    single,
    verdict,
    with_interval,
)
from koinize.report.section import Section


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
            if answer := the_answer(task):
                blocks.append(Paragraph(answer, "strong"))
            choice = _choice(task, sharing(results, task))
            blocks.append(Paragraph(choice, "" if answer else "strong"))
            if task["chosen"]:
                blocks += [Paragraph(text) for text in _collapses(task)]
                blocks += [Paragraph(text) for text in _comparisons(task)]
                blocks += [Facts(_facts(task)), _table(task)]
        return blocks


def _choice(task: Task, together: Sequence[str]) -> str:
    """Of which candidates the merge was chosen, and by what; `together`: the tasks it serves."""
    if not task["chosen"]:
        return "No merge has been chosen yet."
    candidates = [one for one in task["systems"] if one["kind"] == "candidate"]
    distinct = sum(one["same_as"] is None for one in candidates)
    among = count(distinct, "candidate")
    if distinct < len(candidates):
        among = f"{count(len(candidates), 'candidate')}, {distinct} of them distinct"
    if task["chosen"] == "TRUNK":
        said = "The trunk is what would be released: no language has left it yet."
        itself = f" It is {task['reference']}, the same adapter: there is nothing to compare."
        return said + itself * is_reference(task)
    if task["halved"]:
        number, metric = task["halved"], task["metrics"][0]
        return f"The merge {task['chosen']} is what halving left of {number}, by {metric} on dev."
    if distinct == 1:
        return f"The merge {task['chosen']} is the only candidate: nothing had to be chosen on dev."
    metric = task["metrics"][0]
    mean = next(row["mean"] for row in task["selection"] if row["chosen"])
    value = points(mean["value"]) if mean else ""
    if together:
        by = f"dev of {listing(together)} together"
        by += f"; on that of {task['name']} it reached {value} {metric}" if mean else ""
    else:
        by = f"{metric} on dev" + (f", where it reached {value}" if mean else "")
    return f"The merge {task['chosen']} was chosen from {among}, by {by}."


def _collapses(task: Task) -> list[str]:
    """What the mean of the chosen merge may hide."""
    return [
        f"Warning: one answer for nearly everything: {said(one)}"
        for one in task["collapsed"]
        if one["system"] == task["chosen"]
    ]


def _comparisons(task: Task) -> list[str]:
    """One sentence per reference."""
    best = single(task)
    return [
        sentence
        for reference in [*_references(task), *([best["name"]] if best else [])]
        if (sentence := _comparison(task, reference, chosen_verdicts(task, reference)))
    ]


def _references(task: Task) -> list[str]:
    own = individual(task)
    first = [] if is_reference(task) else [task["reference"]]
    return list(dict.fromkeys([*first, *([own] if own else [])]))


def _comparison(task: Task, reference: str, rows: Sequence[VerdictRow]) -> str:
    if not rows:
        return ""
    groups = by_verdict(rows)
    if len(groups) == 1 and len(rows) == len(task["languages"]) > 1:
        said = f"{next(iter(groups))} in every language"
    else:
        said = "; ".join(f"{name} in {listing(languages)}" for name, languages in groups.items())
    metric, chosen = task["metrics"][0], task["chosen"]
    among = joint(task, metric, chosen, reference)
    if among and (
        doubtful := [one for one in groups.get("worse", []) if one not in among["worse"]]
    ):
        said += f" ({listing(doubtful)} by itself; among all languages chance may bring that)"
    margin = task["margins"][metric]
    who = reference
    if reference == individual(task):
        who = f"{reference}, each language's own adapter,"
    elif (best := single(task)) and reference == best["name"]:
        who = f"{reference}, the adapter of {best['settings']['adapter']} for every language,"
    elif task["changed_since"] and not the_answer(task):
        who = f"{reference}, which was trained before {listing(task['changed_since'])} changed,"
    several = max(map(seeds_of, rows))
    over = f" and over {several} seeds" if several > 1 else ""
    return f"On test against {who} with a margin of {margin:g} points{over}: {said}."


def _facts(task: Task) -> tuple[tuple[str, str, str], ...]:
    return (_quality_fact(task), _setup_fact(task), _update_fact(task))


def _quality_fact(task: Task) -> tuple[str, str, str]:
    reference = task["reference"]
    groups = by_verdict(chosen_verdicts(task, reference))
    passed = len(groups.get("better", [])) + len(groups.get("not worse", []))
    judged = sum(len(languages) for languages in groups.values())
    label = f"Quality: better or not worse than {reference}"
    if is_reference(task):
        return label, "the same", f"what would be released is {reference} itself"
    if not judged:
        return (
            label,
            DASH,
            f"nothing to compare: {reference} was not evaluated, or no margin is set",
        )
    explained = [
        f"{name}: {listing(groups[name])}" for name in ("worse", "inconclusive") if name in groups
    ]
    noun = "language" if judged == 1 else "languages"
    return label, f"{passed} of {judged} {noun}", "; ".join(explained) or "shown within the margin"


def _setup_fact(task: Task) -> tuple[str, str, str]:
    costs = task["costs"]
    combined, merged, less = costs["combined"], costs["merged"], costs["savings"]
    estimated = " (estimated)" if costs["combined_is"] == "estimated" else ""
    label = f"Set-up: machine time against {task['reference']}{estimated}"
    if not (combined and merged):
        return label, DASH, "not all of the work stands in the ledger"
    if costs["trunk"]:
        said = f"a trunk in {_machine(merged)}: one training on all languages, as COMB is"
        return label, saving(less["machine"]), said
    machine = f"{_machine(merged)} against {_machine(combined)}, choosing not counted"
    choice = f"{saving(costs['savings_with_choosing']['machine'])} with it"
    wall = f"wall time with one machine per language: {saving(less['parallel'])} (derived)"
    best = costs["combined_on_as_many_machines"]
    if best and best["saved"] is not None and best["workers"] > 1:
        wall += f", or {saving(best['saved'])} than COMB on as many at best (estimated)"
    return label, saving(less["machine"]), f"{machine}, {choice}; {wall}"


def _update_fact(task: Task) -> tuple[str, str, str]:
    label = "Update of one language, tested: machine time"
    if not task["costs"]["updates"]:
        return label, DASH, "no language has left the trunk yet"
    found = {scope: mean_update(task, scope) for scope in SCOPES}
    tested, trained, chosen = found["testing"], found["training"], found["choosing"]
    if not tested or not tested["update"] or not tested["combined"]:
        return label, DASH, "not all of the work stands in the ledger"
    said = (
        f"{_machine(tested['update'])} against {_machine(tested['combined'])} for COMB retrained "
    )
    said += f"and tested ({tested['update_is']} against {tested['combined_is']}); "
    others = [
        f"{words} {saving(one['savings']['machine'])}"
        for words, one in (("without testing", trained), ("with choosing anew", chosen))
        if one
    ]
    mean = f"mean of {count(len(task['costs']['updates']), 'language')}"
    less, ends = tested["savings"]["machine"], tested["savings_interval"]["machine"]
    return label, saving_between(less, ends), said + "; ".join([*others, mean])


def _machine(amount: Amount) -> str:
    return duration(amount["machine_seconds"])


def _table(task: Task) -> Table:
    references = _references(task)
    chosen = str(task["chosen"])
    columns = ("language", *(f"against {one}" for one in references), chosen, *references)
    return Table(
        columns=columns,
        rows=tuple(_language(task, one, references) for one in task["languages"]),
        caption=f"{task['metrics'][0]} on test, in points: the merge's difference, and the scores, "
        f"each with its 95 % interval{_which_seeds(task)}",
        numbers=frozenset(range(len(references) + 1, len(columns))),
    )


def _which_seeds(task: Task) -> str:
    """Which seeds the figures are of, where there are several."""
    several = seeds(task)
    if several == 1:
        return ""
    return f"; differences over {several} seeds, scores with the first, which is released"


def _language(task: Task, language: str, references: Sequence[str]) -> tuple[Cell, ...]:
    metric, chosen = task["metrics"][0], task["chosen"]
    ours = score(task, "test", metric, chosen, language)
    found = [verdict(task, metric, chosen, one, language) for one in references]
    return (
        Cell(language, count(ours["n"], "row") if ours else ""),
        *(_against(row) for row in found),
        Cell(*with_interval(ours), "strong"),
        *(Cell(*with_interval(score(task, "test", metric, one, language))) for one in references),
    )


def _against(row: VerdictRow | None) -> Cell:
    if row is None:
        return Cell(DASH)
    return verdict_cell(row["verdict"], " ".join(difference_with_interval(row)))


section = Summary()
