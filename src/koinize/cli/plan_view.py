"""A plan as a table for people, and as JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from koinize.api.planned import plan_warnings
from koinize.ledger.scopes import WORDS
from koinize.model import quantized
from koinize.pipeline import Missing, Plan, Project
from koinize.pipeline.estimate import Estimate, Schedule, amount, duration
from koinize.pipeline.plan import GONE, NEVER, NEWER
from koinize.pipeline.power import too_few_rows
from koinize.pipeline.results import kept_recipes
from koinize.pipeline.wording import unfair_combs
from koinize.shown import message

ROWS_BEFORE_GROUPING = 24


def show_plan(todo: Plan, project: Project) -> None:
    """Print what is missing, why, and the estimate on both clocks."""
    console = Console()
    for finding in plan_warnings(project, todo):
        console.print(message(f"warning: {finding}"), style="yellow", markup=False)
    if not todo.missing:
        console.print(f"nothing is missing: all {todo.total} steps are done")
        for line in outlook_lines(todo):
            console.print(line, markup=False, highlight=False)
        return
    table = Table("step", "why", "estimated", box=None, pad_edge=False, header_style="bold")
    table.columns[2].justify = "right"
    for name, why, seconds in _lines(todo.missing):
        table.add_row(
            Text(message(name)), Text(message(why)), duration(seconds)
        )  # a setting may hold `[/INST]`
    console.print(table)
    console.print(f"{len(todo.missing)} of {todo.total} steps are missing{_guessed(todo)}")
    for line in (*_seed_lines(todo, project), *_open_lines(todo, project)):
        console.print(line, markup=False, highlight=False)
    comparisons = (*set_up_lines(todo), *saving_lines(todo))
    memory = [str(one) for one in (todo.memory, todo.passes) if one]
    for line in (*estimate_lines(todo), *comparisons, *outlook_lines(todo), *memory):
        console.print(line, markup=False, highlight=False)
    for note in (*kept_recipes(project), *too_few_rows(project)):
        console.print(message(f"note: {note}"), markup=False, highlight=False)
    for line in _training_lines(todo, project):
        console.print(message(line), markup=False, highlight=False)
    if todo.lengths is None:
        console.print("how many tokens the rows have is counted once the base model is here")


def _seed_lines(todo: Plan, project: Project) -> Iterator[str]:
    """How much of it repeats a comparison with further seeds."""
    further = [one for one in todo.missing if one.step.seed]
    if further:
        work = duration(sum(one.seconds for one in further))
        yield (
            f"{len(further)} of them, {work} of work, repeat the comparison with further seeds "
            f"(training.seeds: {project.spec.training.seeds})"
        )
    if any(one.step.waits for one in further):
        yield "they repeat the merge that dev will choose, which may be another than that above"


def _open_lines(todo: Plan, project: Project) -> Iterator[str]:
    """What may follow that the plan does not know yet."""
    if todo.search_goes_on:
        yield "a search goes on: its scores decide whether more steps follow"
    retries = project.spec.training.retries
    if todo.may_repeat and retries:
        times = "once" if retries == 1 else f"at most {retries} times"
        yield f"a training that ends badly on dev is repeated with another seed, {times}"


def _training_lines(todo: Plan, project: Project) -> Iterator[str]:
    """Who trains, and on what, where that is not koinize on the base as it is."""
    training = project.spec.training
    if not any(one.step.kind == "train" for one in todo.missing):
        return
    if training.trainer != "koinize":
        yield f"a program trains: {' '.join(training.trainer.command)}"
    if training.load_in_4bit:
        yield quantized.in_words(project.spec.base.dtype)


def plan_json(todo: Plan, project: Project) -> dict[str, object]:
    """The same as plain data: seconds, and amounts of money as decimals in text."""
    cost = todo.cost(todo.wall)
    return {
        "total": todo.total,
        "missing": [
            {"step": one.step.name, "id": one.step.id, "why": one.why, "seconds": one.seconds}
            for one in todo.missing
        ],
        "wall_seconds": todo.wall.value,
        "wall_interval": _interval(todo.wall),
        "machine_seconds": todo.machine.value,
        "machine_interval": _interval(todo.machine),
        "cost": cost and _money(cost.value),
        "cost_interval": cost and [_money(cost.low), _money(cost.high)],
        "currency": todo.price.get("currency", ""),
        "price": dict(todo.price),
        "estimated_from": _source(todo),
        "search_goes_on": todo.search_goes_on,
        "may_repeat_trainings": todo.may_repeat,
        "first_guesses": list(todo.guessed),
        "set_up": _set_up_json(todo),
        "saving": _saving_json(todo),
        "new_generation": [
            {
                "task": one.task,
                "branches": list(one.branches),
                "languages": one.languages,
                "training_seconds": one.trunk.value,
                "training_interval": _interval(one.trunk),
            }
            for one in todo.outlook
        ],
        "findings": list(project.inputs.findings),
        "unfair_comparisons": list(unfair_combs(project.steps)),
        "too_few_rows": [asdict(one) for one in too_few_rows(project)],
        "lengths": _lengths_json(todo),
        "memory": _memory_json(todo),
        "passes": todo.passes and asdict(todo.passes),
    }


def _memory_json(todo: Plan) -> dict[str, object] | None:
    """Bytes of a training, and of all workers together."""
    if (need := todo.memory) is None:
        return None
    return {
        "training": need.memory.total,
        **asdict(need.memory),
        "workers": need.workers,
        "of_all_workers": need.memory.of_workers(need.workers),
        "machine": need.machine_bytes,
    }


def _lengths_json(todo: Plan) -> list[dict[str, object]] | None:
    """How many rows of each use lose tokens; one that cannot be used refuses the plan."""
    if todo.lengths is None:
        return None
    return [
        {
            "task": use.task,
            "language": use.language,
            "split": use.split,
            "for": "training" if use.training else "evaluation",
            "rows": one.rows,
            "cut": one.cut,
            "first": list(one.first),
        }
        for use, one in todo.lengths.items()
    ]


def estimate(todo: Plan) -> str:
    """Both clocks and the money, in one clause."""
    text = f"about {duration(todo.wall.value)} of wall time"
    text += f" and {duration(todo.machine.value)} of this machine"
    if (cost := todo.cost(todo.wall)) is not None:
        text += f", {amount(cost.value)} {todo.price['currency']}"
    return text


def estimate_lines(todo: Plan) -> Iterable[str]:
    """Both clocks and the money, each with its interval."""
    yield f"  wall time     {_between(todo.wall)}"
    yield f"  machine time  {_between(todo.machine)}"
    cost = todo.cost(todo.wall)
    if cost is not None:
        interval = f"({amount(cost.low)} to {amount(cost.high)})"
        text = f"{amount(cost.value)} {todo.price['currency']} {interval}"
        yield f"  cost          {text}, idle time included"


def saving_lines(todo: Plan) -> Iterable[str]:
    """What this update takes against retraining on everything, both sides paying for the same."""
    if (found := todo.comparison) is None:
        return
    how = "measured here before, scaled to today's rows" if found.measured else "estimated"
    tasks = ", ".join(found.tasks)
    yield f"against retraining COMB on all rows of {tasks} ({how}), loading included:"
    for one in found.scopes:
        yield f"  {WORDS[one.scope]}"
        yield f"    wall time     {_instead(one.update.wall, one.retrain.wall, one.wall)}"
        yield f"    machine time  {_instead(one.update.machine, one.retrain.machine, one.machine)}"
        worth = todo.worth(one.update.machine), todo.worth(one.retrain.machine)
        if worth[0] and worth[1]:
            took = f"{amount(worth[0].value)} instead of {amount(worth[1].value)}"
            yield f"    that costs    {took} {todo.price['currency']}, without what is idle"
    if found.workers > 1:
        last = found.scopes[-1]
        best, ours = last.shared.wall, last.update.wall
        yield (
            f"  with the {found.workers} workers training COMB at once, {duration(best.value)} of "
            f"wall time at best (estimated): against that the update takes {_less(ours, best)}"
        )
    if found.steps_besides:
        steps = "1 step" if found.steps_besides == 1 else f"{found.steps_besides} steps"
        yield (
            f"  only the report wants the rest, {steps}: "
            f"{duration(found.besides.wall.value)} of wall time, "
            f"{duration(found.besides.machine.value)} of machine time"
        )


def _instead(update: Estimate, retrain: Estimate, less: Estimate) -> str:
    """Both sides, and how much less one takes, with its interval."""
    took = f"{duration(update.value)} instead of {duration(retrain.value)}"
    return f"{took}: {_less(update, retrain)} ({_percent(less.low)} to {_percent(less.high)})"


def _percent(less: float) -> str:
    return f"{less:.0f} % less" if less >= 0 else f"{-less:.0f} % more"


def set_up_lines(todo: Plan) -> Iterable[str]:
    """What the languages' trainings and the merges take against one training on everything."""
    if (found := todo.set_up) is None or found.workers == 1:
        return
    yield f"before anything is tested, {', '.join(found.tasks)} takes"
    merged, combined = found.merged, found.combined
    rows = (
        ("merged, the languages side by side", merged.wall, merged.machine),
        (f"COMB, trained by one of {found.workers} workers", combined.wall, combined.machine),
        (f"COMB, trained by the {found.workers} at once", found.shared.wall, found.shared.machine),
    )
    for label, wall, used in rows:
        yield (
            f"  {label:<34}  {duration(wall.value)} of wall time, "
            f"{duration(used.value)} of machine time"
        )
    count = found.workers
    yield f"  the last is at best (estimated: {count} workers {count} times as fast as one)"
    yield "  working side by side saves time, not work"


def outlook_lines(todo: Plan) -> Iterable[str]:
    """Where a new generation would pay, and its price."""
    for one in todo.outlook:
        yield (
            f"{one.task}: {len(one.branches)} of {one.languages} languages left the trunk "
            f"({', '.join(one.branches)}). `koinize run --new-generation` trains it again on all "
            f"rows of today: {_between(one.trunk)} of training"
            + ("" if one.known else ", a first guess")
        )


def _between(estimate: Estimate) -> str:
    interval = f"{duration(estimate.low)} to {duration(estimate.high)}"
    return f"{duration(estimate.value)} ({interval})"


def _guessed(todo: Plan) -> str:
    """Which of the figures no ledger stands behind."""
    if not todo.guessed:
        return ""
    if todo.guessed == todo.kinds:
        return "; a first guess, since the ledger knows nothing of such steps:"
    return f"; first guesses for {', '.join(todo.guessed)}, the rest from the ledger:"


def _source(todo: Plan) -> str:
    if not todo.guessed:
        return "the ledger"
    return "first guesses" if todo.guessed == todo.kinds else "the ledger and first guesses"


def _less(update: Estimate, retrain: Estimate) -> str:
    if not retrain.value:
        return "no saving"
    share = 100 * (1 - update.value / retrain.value)
    return f"{share:.1f} % less" if share >= 0 else f"{-share:.1f} % more"


def _saving_json(todo: Plan) -> dict[str, Any] | None:
    if (found := todo.comparison) is None:
        return None
    return {
        "tasks": list(found.tasks),
        "measured": found.measured,
        "workers": found.workers,
        "scopes": [
            {
                "scope": one.scope,
                "update": _schedule_json(one.update, todo, worth=True),
                "retrain": _schedule_json(one.retrain, todo, worth=True),
                "retrain_by_all_workers": _schedule_json(one.shared, todo, worth=True),
                "wall_less": one.wall.value,
                "wall_less_interval": _interval(one.wall),
                "machine_less": one.machine.value,
                "machine_less_interval": _interval(one.machine),
            }
            for one in found.scopes
        ],
        "besides": {
            "steps": found.steps_besides,
            **_schedule_json(found.besides, todo, worth=True),
        },
    }


def _set_up_json(todo: Plan) -> dict[str, Any] | None:
    if (found := todo.set_up) is None:
        return None
    return {
        "tasks": list(found.tasks),
        "merged": _schedule_json(found.merged, todo),
        "combined": _schedule_json(found.combined, todo),
        "workers": found.workers,
        "combined_by_all_workers": _schedule_json(found.shared, todo),
    }


def _schedule_json(times: Schedule, todo: Plan, *, worth: bool = False) -> dict[str, Any]:
    """`worth`: the cost is that of the machine time, as in the report, without what is idle."""
    cost = todo.worth(times.machine) if worth else todo.cost(times.wall)
    return {
        "wall_seconds": times.wall.value,
        "wall_interval": _interval(times.wall),
        "machine_seconds": times.machine.value,
        "machine_interval": _interval(times.machine),
        "cost": cost and _money(cost.value),
    }


def _interval(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]


def _money(value: float) -> str:
    return f"{value:.6f}"


def _lines(missing: Sequence[Missing]) -> Iterator[tuple[str, str, float]]:
    """A line a step; in a long plan, a line for all steps of a kind that are missing alike."""
    groups: dict[tuple[str, ...], list[Missing]] = {}
    for one in missing:
        alike = _alike(one) if len(missing) > ROWS_BEFORE_GROUPING else (one.step.name,)
        groups.setdefault(alike, []).append(one)
    for some in groups.values():
        name, whys = some[0].step.name, {one.why for one in some}
        if len(some) > 1:
            step = some[0].step
            name = f"{step.kind}/{step.task}/... {step.split}".rstrip() + f", {len(some)} steps"
        why = whys.pop() if len(whys) == 1 else "what they read or use changed"
        yield name, why, sum(one.seconds for one in some)


def _alike(one: Missing) -> tuple[str, ...]:
    """Equal for the steps that may share a line. A training has its own: it is what costs."""
    step = one.step
    if step.kind == "train":
        return (step.name,)
    return step.kind, step.task, step.split, one.why if one.why in (NEVER, GONE, NEWER) else ""
