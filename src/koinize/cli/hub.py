"""Releases for a hub: the model card, and `koinize push`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinize.cli.options import (
    RELEASES,
    AsJson,
    Place,
    SpecFile,
    TaskName,
    open_project,
    print_json,
)
from koinize.errors import InputError

if TYPE_CHECKING:
    from koinize.export import Source

Named = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Such as v3; or production or staging: as in use.")
]
Licence = Annotated[
    str | None, typer.Option("--license", help="Of the adapter; that of koinize.yaml if not given.")
]
BaseModel = Annotated[
    str | None,
    typer.Option(help="The base model's name on the hub, where it has another one here."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel=RELEASES)(push)


def card(
    named: Named,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="To write; must not exist.")],
    place: Place = None,
    spec: SpecFile = None,
    licence: Licence = None,
    base_model: BaseModel = None,
    task: TaskName = None,
) -> None:
    """Write the model card of a release.

    With its scores by language, recipe, costs and limits, as a hub reads it.
    """
    from koinize.export.card import base_of, licence_of, model_card
    from koinize.store import refuse_existing, refuse_own_folder, write_atomically

    found = _source(place, spec, task, named)
    text = model_card(found, licence_of(found, licence), base_of(found, base_model))
    refuse_own_folder(out)
    refuse_existing(out)
    write_atomically(out, text)
    typer.echo(f"wrote the card of {found.release.name} of {found.task} to {out}")


def push(
    named: Named,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME.")],
    place: Place = None,
    spec: SpecFile = None,
    *,
    licence: Licence = None,
    base_model: BaseModel = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LANGUAGE=TASK",
            help="The test rows are a benchmark's, and that is its name of the task; repeat.",
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Anybody can read it.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Add a commit to a repository that is there.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Send it without asking.")] = False,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Send a release to a hub.

    The adapter and its model card, to a private repository, once you have agreed.
    """
    from koinize.cli.words import key_values
    from koinize.export.hub import Parcel, push, put_together

    benchmarks = key_values(benchmark or (), "LANGUAGE=TASK, such as de=sentiment_de")
    found = _source(place, spec, task, named)
    with tempfile.TemporaryDirectory() as scratch:
        put_together(found, licence, base_model, Path(scratch), benchmarks)
        says = f"release {found.release.name} of {found.task}"
        parcel = Parcel(Path(scratch), repository, public, update, says)
        typer.echo(parcel.described(), err=as_json)
        if not yes:
            _ask()
        address = push(parcel)
        files = [parcel.name(one) for one in parcel.files]
    if as_json:
        print_json({"repository": repository, "url": address, "public": public, "files": files})
        return
    typer.echo(f"sent: {address}")


def _ask() -> None:
    """Raise InputError where nobody can answer, or who answers says no."""
    if not sys.stdin.isatty():
        raise InputError("nobody is there to agree", remedy="say --yes")
    if not typer.confirm("Send it?"):
        raise InputError("nothing was sent")


def _source(place: Path | None, spec: Path | None, task: str | None, named: str) -> Source:
    from koinize import export
    from koinize.release import task_of

    project = open_project(place, spec)
    return export.source(project, task_of(project, task), named)
