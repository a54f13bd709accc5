"""The commands of a project: init, plan, run, report, schema."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from koinize.cli.options import PROJECT, AsJson, Place, SpecFile, open_project, print_json

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
    from koinize.cli.limits import read_limits
    from koinize.cli.plan_view import plan_json, show_plan

    limits = read_limits(max_cost, max_time)
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
    from koinize.api.running import run as carry_out
    from koinize.cli.limits import read_limits
    from koinize.cli.progress import watching

    limits = read_limits(max_cost, max_time)
    project = open_project(
        place,
        spec,
        retrain_comb=retrain_comb,
        new_generation=new_generation,
        choose_again=choose_again,
    )
    with watching(quiet=as_json) as watcher:
        ran = carry_out(project, watcher, limits.check)
    if as_json:
        print_json(
            {
                "done": ran.done,
                "warnings": ran.warnings,
                "notes": ran.notes,
                "report": str(ran.report),
            }
        )
    else:
        for warning in ran.warnings:
            typer.echo(f"warning: {warning}")
        for note in ran.notes:
            typer.echo(f"note: {note}")
        did = f"{len(ran.done)} steps done" if ran.done else "nothing to do"
        typer.echo(f"{did}; the report is {ran.report}")


def report(
    place: Place = None,
    spec: SpecFile = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where the HTML goes.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the results, and write them as one HTML file."""
    from rich.console import Console

    from koinize.api.reporting import REPORT, report_results, write_report
    from koinize.report import render_text
    from koinize.report.render import BEGINS
    from koinize.store import replaceable

    project = open_project(place, spec)
    written = replaceable(out, BEGINS, "report") if out else project.root / REPORT
    results = report_results(project)
    # Machines may ask where the project may only be read.
    with suppress(OSError) if as_json and out is None else nullcontext():
        write_report(results, written)
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
