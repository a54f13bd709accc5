"""What setting up took, on both clocks and in money, and the paper's table beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from koinize.report.blocks import Block, Cell, Heading, Paragraph, Table, plain, reading
from koinize.report.cost_figures import Amount, AtBest, Savings, TaskCosts
from koinize.report.figures import Results, Task
from koinize.report.formats import DASH, count, duration, listing, money, saving
from koinize.report.lookup import mean_update, named
from koinize.report.paper import PUBLISHED, SOURCE, Published
from koinize.report.section import Section

CLOCKS = (
    "Elapsed is the time during which at least one of the steps ran, as this machine ran them; "
    "machine time is the sum over steps of seconds times the share of the machine. Loading the "
    "model is no part of a step and stands apart. A dash means that a part is missing from the "
    "ledger: nothing is computed from missing figures."
)
SIDE_BY_SIDE = (
    "Workers or machines side by side shorten the time on the clock and save no work: whether "
    "there is less work, only machine time and cost say."
)
AT_BEST = "at best: {} times as fast (estimated)"
ESTIMATED = (
    "COMB was not trained here, so its figures are an estimate: the trainings of all languages, "
    "one after the other. The same rows would pass the model."
)
DERIVED = "derived: the longest training, then merge after merge"


class Costs(Section):
    """Per task: set-up, merged against combined; then the paper's rows and ours."""

    title = "Costs"
    order = 30

    def data(self, results: Results) -> Sequence[Block]:
        """Everything that the ledger tells about the present results, and what is around them."""
        blocks: list[Block] = [reading(CLOCKS), Paragraph(SIDE_BY_SIDE)]
        blocks += map(Paragraph, _prices(results))
        for task in results["tasks"]:
            if heading := named(results["tasks"], task):
                blocks.append(Heading(heading))
            if task["costs"]["combined_is"] == "estimated":
                blocks.append(Paragraph(ESTIMATED, "strong"))
            blocks.append(_setup(task, results))
        blocks += _around(results)
        blocks.append(_beside_the_paper(results))
        for one in PUBLISHED:
            if one.note:
                blocks.append(Paragraph(f"The paper's {one.phase}: {one.note}.", "muted"))
        return blocks


def _prices(results: Results) -> list[str]:
    if not results["prices"]:
        return ["No price given: costs are shown in time only."]
    return [
        f"Price of a machine hour: {price.get('currency', '')} {price['per_hour']}, "
        f"from {price.get('source', 'no source')}, {price.get('date', 'no date')}."
        for price in results["prices"]
    ]


def _setup(task: Task, results: Results) -> Table:
    costs, currency = task["costs"], results["currency"]
    less, with_choosing = costs["savings"], costs["savings_with_choosing"]
    comb = "COMB: one training on all languages"
    if costs["combined_is"] == "estimated":
        comb = "COMB, estimated: all trainings, one after the other"
    if costs["trunk"]:
        return _generation(task, comb, results)
    alone = len(task["languages"])
    combined = alone if costs["combined_is"] == "estimated" else 1
    workers, machines = costs["combined_by_all_workers"], costs["combined_on_as_many_machines"]
    saved = _saving("merged against COMB", less)
    saved_with_choosing = _saving("merged and chosen against COMB", with_choosing)
    body = (
        _trained(comb, combined, costs["combined"], currency),
        *_at_best("COMB, trained by all {} workers at once", workers, costs, currency),
        _trained("one training per language", alone, costs["trainings"], currency),
        _amount("merging every candidate", costs["merges"], currency),
        _amount("merged: both of these", costs["merged"], currency, "strong"),
        saved,
        _parallel(costs["parallel_seconds"], less["parallel"]),
        *_at_best("COMB, trained on all {} such machines at once", machines, costs, currency),
        _amount("choosing on dev", costs["choosing"], currency),
        _amount("merged and chosen", costs["with_choosing"], currency, "strong"),
        saved_with_choosing,
        _amount("evaluating every system on test", costs["testing"], currency),
    )
    return Table(
        columns=("set-up", "elapsed, as run", "machine time", "cost", "steps"),
        rows=body,
        caption="set-up, of what the present results stand on",
        numbers=frozenset({1, 2, 3, 4}),
        highlight=frozenset({body.index(saved), body.index(saved_with_choosing)}),
    )


def _at_best(
    name: str, one: AtBest | None, costs: TaskCosts, currency: str | None
) -> list[tuple[Cell, ...]]:
    """COMB by several at once: less time on the clock, the same machine time and cost; and how the
    merge compares that had as many.
    """
    if one is None or one["workers"] == 1:
        return []
    _, _, machine, cost, _ = _amount("", costs["combined"], currency)
    head = Cell(name.format(one["workers"]), AT_BEST.format(one["workers"]))
    against = "" if one["saved"] is None else f"merged: {saving(one['saved'])}"
    elapsed = Cell(duration(one["elapsed_seconds"]), against)
    return [(head, elapsed, machine, cost, plain(""))]


def _generation(task: Task, comb: str, results: Results) -> Table:
    """A trunk is what COMB is: its training is the set-up, and nothing is saved by it."""
    costs, currency = task["costs"], results["currency"]
    joint = results["spec"].get("training", {}).get("trunk", "joint") == "joint"
    trained = 1 if joint else 1 + len(task["languages"])  # with a branch of each
    trunk = "the trunk: one training that every language starts from"
    body = (
        _trained(comb, 1, costs["combined"], currency),
        _trained(trunk, trained, costs["trainings"], currency),
        _saving("the trunk against COMB", costs["savings"]),
        _amount("merging every candidate", costs["merges"], currency),
        _amount("choosing on dev", costs["choosing"], currency),
        _amount("evaluating every system on test", costs["testing"], currency),
    )
    return Table(
        columns=("set-up", "elapsed, as run", "machine time", "cost", "steps"),
        rows=body,
        caption="set-up, of what the present results stand on",
        numbers=frozenset({1, 2, 3, 4}),
        highlight=frozenset({2}),
    )


def _trained(
    name: str, trainings: int, amount: Amount | None, currency: str | None
) -> tuple[Cell, ...]:
    """With what was trained again."""
    head, *rest = _amount(name, amount, currency)
    again = amount["steps"] - trainings if amount else 0
    if again < 1:
        return head, *rest
    seeds = "another seed" if again == 1 else "other seeds"
    return replace(head, below=f"and {count(again, 'more training')} with {seeds}"), *rest


def _amount(
    name: str, amount: Amount | None, currency: str | None, tone: str = ""
) -> tuple[Cell, ...]:
    head = Cell(name, tone="strong" if tone else "")
    if amount is None:
        return head, *[plain(DASH)] * 4
    return (
        head,
        plain(duration(amount["elapsed_seconds"])),
        plain(duration(amount["machine_seconds"])),
        plain(money(amount["cost"], currency)),
        plain(amount["steps"]),
    )


def _saving(name: str, less: Savings) -> tuple[Cell, ...]:
    figures = map(saving, (less["elapsed"], less["machine"], less["cost"]))
    return Cell(name, tone="strong"), *map(plain, figures), plain("")


def _parallel(seconds: float | None, less: float | None) -> tuple[Cell, ...]:
    head = Cell("merged, with one machine per language", DERIVED)
    below = f"{saving(less)} than COMB" if less is not None else ""
    return head, Cell(duration(seconds), below), plain(""), plain(""), plain("")


def _around(results: Results) -> list[Block]:
    """Idle time, and all else that no step of a task caused; and the energy of everything."""
    blocks: list[Block] = []
    currency, energy = results["currency"], results["costs"]["energy"]
    rows = [
        (*_amount(one["label"], one, currency)[:4], plain(one["steps"] or ""))
        for one in results["costs"]["around"]
    ]
    if rows:
        blocks.append(
            Table(
                columns=("around the steps, in all runs", "elapsed", "machine time", "cost", ""),
                rows=tuple(rows),
                caption="what no finished step took; idle: elapsed while nothing ran, machine time "
                "while a worker had nothing to do",
                numbers=frozenset({1, 2, 3, 4}),
            )
        )
    if energy:
        kilowatt_hours = energy["joules"] / 3_600_000
        blocks.append(
            Paragraph(
                f"Energy of all runs: {kilowatt_hours:.3g} kWh, read for "
                f"{energy['machine_time_percent']:.0f} % of the machine time by "
                f"{listing(energy['sources'])}."
            )
        )
    return blocks


def _beside_the_paper(results: Results) -> Table:
    rows = [_published(one) for one in PUBLISHED]
    for task in results["tasks"]:
        name = named(results["tasks"], task) or results["project"]
        rows += [_our_setup(name, task, results), _our_update(name, task, results)]
    return Table(
        columns=(
            "phase", "COMB, wall", "COMB, cost", "merged, wall", "merged, cost",
            "wall, change", "cost, change",
        ),
        rows=tuple(rows),
        caption=f"beside the paper's table ({SOURCE}), whose merged wall time is that of trainings "
        "side by side, and COMB's that of one machine (on five: at best .68 h, not 3.4 h); so "
        "ours is the one derived for one machine per language. Without a price, cost is machine "
        "time",
        numbers=frozenset(range(1, 7)),
        highlight=frozenset(range(len(PUBLISHED), len(rows))),
    )  # fmt: skip


def _published(row: Published) -> tuple[Cell, ...]:
    wall = 100 * (1 - row.merged_hours / row.combined_hours)
    cost = 100 * (1 - row.merged_cost / row.combined_cost)
    figures = (
        f"{row.combined_hours:g} h",
        f"USD {row.combined_cost:,.5g}",
        f"{row.merged_hours:g} h",
        f"USD {row.merged_cost:,.5g}",
        saving(wall),
        saving(cost),
    )
    return plain(f"the paper: {row.phase}"), *map(plain, figures)


def _our_setup(name: str, task: Task, results: Results) -> tuple[Cell, ...]:
    costs, currency = task["costs"], results["currency"]
    less, wall = costs["savings"], costs["parallel_seconds"]
    return (
        Cell(f"{name}: initial set-up", "choosing and evaluating not counted"),
        *_ours(costs["combined"], costs["merged"], wall, less["parallel"], less, currency),
    )


def _our_update(name: str, task: Task, results: Results) -> tuple[Cell, ...]:
    head = Cell(f"{name}: update of one language", "training and merging; mean over languages")
    found = mean_update(task, "training")
    if found is None:
        nothing: Savings = {"elapsed": None, "machine": None, "cost": None}
        return head, *_ours(None, None, None, None, nothing, results["currency"])
    less, update = found["savings"], found["update"]
    seconds = update["elapsed_seconds"] if update else None
    currency = results["currency"]
    return head, *_ours(found["combined"], update, seconds, less["elapsed"], less, currency)


def _ours(
    combined: Amount | None,
    merged: Amount | None,
    merged_wall: float | None,
    less_wall: float | None,
    less: Savings,
    currency: str | None,
) -> tuple[Cell, ...]:
    less_cost = less["cost"] if currency else less["machine"]
    figures = (
        duration(combined["elapsed_seconds"] if combined else None),
        _cost(combined, currency),
        duration(merged_wall),
        _cost(merged, currency),
        saving(less_wall),
        saving(less_cost),
    )
    return tuple(map(plain, figures))


def _cost(amount: Amount | None, currency: str | None) -> str:
    if amount is None:
        return DASH
    return money(amount["cost"], currency) if currency else duration(amount["machine_seconds"])


section = Costs()
