"""The commands of a project: init, plan, run, report, schema."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinize.cli.options import PROJECT, AsJson, Place, SpecFile, open_project, print_json

if TYPE_CHECKING:
    from koinize.pipeline import Project
    from koinize.report import Results

ChooseAgain = Annotated[
    bool, typer.Option("--choose-again", help="Choose the recipe again where it would be kept.")
]
RetrainComb = Annotated[
    bool,
    typer.Option("--retrain-comb", help="Train COMB again, too, where only training rows changed."),
]

NewGeneration = Annotated[
    bool,
    typer.Option(
        "--new-generation", help="Train the trunk again, on today's rows of all languages."
    ),
]

MaxCost = Annotated[
    str | None,
    typer.Option(
        "--max-cost",
        metavar="AMOUNT",
        help="Refuse when it may cost more, in the currency of the price in koinize.yaml.",
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Refuse when it may take longer: 5400, 90min, 1h30m or 2h.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (init, plan, run, report, schema):
        app.command(rich_help_panel=PROJECT)(command)


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    example: Annotated[str, typer.Option(help="Which example to write.")] = "reviews",
) -> None:
    """Write a small project to start from.

    A commented koinize.yaml, and data in several languages.
    """
    from koinize.examples import write_example

    write_example(example, folder)
    typer.echo(f"wrote {folder}/koinize.yaml and its data; next: cd {folder} && koinize plan")


def plan(
    place: Place = None,
    spec: SpecFile = None,
    retrain_comb: RetrainComb = False,
    new_generation: NewGeneration = False,
    choose_again: ChooseAgain = False,
    max_cost: MaxCost = None,
    max_time: MaxTime = None,
    as_json: AsJson = False,
) -> None:
    """Say what is missing, why, and what it will cost."""
    from koinize.cli.limits import Limits
    from koinize.cli.plan_view import plan_json, show_plan

    limits = Limits.read(max_cost, max_time)
    project = open_project(
        place,
        spec,
        retrain_comb=retrain_comb,
        new_generation=new_generation,
        choose_again=choose_again,
    )
    todo = project.plan()
    if as_json:
        print_json(plan_json(todo, project))
    else:
        show_plan(todo, project)
    limits.check(todo)


def run(
    place: Place = None,
    spec: SpecFile = None,
    retrain_comb: RetrainComb = False,
    new_generation: NewGeneration = False,
    choose_again: ChooseAgain = False,
    max_cost: MaxCost = None,
    max_time: MaxTime = None,
    as_json: AsJson = False,
) -> None:
    """Do what is missing: train, merge, choose, test, report.

    The merge is chosen on dev, and tested once.
    """
    from koinize.cli.limits import Limits
    from koinize.cli.progress import watching
    from koinize.errors import StepError
    from koinize.pipeline.endings import bad_ends

    limits = Limits.read(max_cost, max_time)
    project = open_project(
        place,
        spec,
        retrain_comb=retrain_comb,
        new_generation=new_generation,
        choose_again=choose_again,
    )
    with watching(quiet=as_json) as watcher:
        todo, outcome = project.run(watcher, limits.check)
    if outcome.failed:
        lines = [*outcome.failed.values(), f"{len(outcome.skipped)} steps wait for them"]
        raise StepError("\n".join(lines))
    warnings = list(bad_ends(project, outcome.done))
    written = project.root / "report.html"
    if todo.missing or _is_outdated(written, project):
        _write_report(_results(project), written)
    if as_json:
        print_json({"done": outcome.done, "warnings": warnings, "report": str(written)})
    else:
        for warning in warnings:
            typer.echo(f"warning: {warning}")
        did = f"{len(outcome.done)} steps done" if outcome.done else "nothing to do"
        typer.echo(f"{did}; the report is {written}")


def report(
    place: Place = None,
    spec: SpecFile = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where the HTML goes.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the results, and write them as one HTML file."""
    from rich.console import Console

    from koinize.cli.output import replaceable
    from koinize.report import render_text
    from koinize.report.render import BEGINS

    project = open_project(place, spec)
    written = replaceable(out, BEGINS, "report") if out else project.root / "report.html"
    results = _results(project)
    # Machines may ask where the project may only be read.
    with suppress(OSError) if as_json and out is None else nullcontext():
        _write_report(results, written)
    if as_json:
        print_json(results)
        return
    render_text(results, Console())
    typer.echo(f"the report is {written}")
    if open_it:
        typer.launch(str(written))


def schema() -> None:
    """Print the JSON Schema of koinize.yaml."""
    from koinize.spec import schema as spec_schema

    print_json(spec_schema())


def _is_outdated(report: Path, project: Project) -> bool:
    """Whether work was recorded since the report, as when a run was killed before writing it."""
    ledger = project.files.ledger
    if not (report.exists() and ledger.exists()):
        return not report.exists()
    return report.stat().st_mtime_ns < ledger.stat().st_mtime_ns


def _results(project: Project) -> Results:
    from dataclasses import replace

    from koinize.pipeline.report_input import gather
    from koinize.release import released
    from koinize.report import results

    source = gather(project)
    releases, notes = released(project)
    return results(replace(source, releases=releases, notes=[*source.notes, *notes]))


def _write_report(results: Results, path: Path) -> None:
    from koinize.report import render_html
    from koinize.store import write_atomically

    write_atomically(path, render_html(results))
