"""What the commands of a project have in common: its file, its name, JSON for machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from koinize.pipeline import Project

PROJECT, RELEASES, ADAPTERS, ACCOUNT = "Project", "Releases", "Adapters", "Account"
"""The groups that `koinize --help` lists the commands in."""

Place = Annotated[
    Path | None,
    typer.Argument(
        metavar="PROJECT",
        help="A project's folder or its koinize.yaml; the folder you are in if not given.",
        show_default=False,
    ),
]
SpecFile = Annotated[Path | None, typer.Option("--spec", help="PROJECT, as an option.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
TaskName = Annotated[str | None, typer.Option("--task", help="Needed where there are several.")]


def open_project(
    place: Path | None,
    spec: Path | None = None,
    *,
    retrain_comb: bool = False,
    new_generation: bool = False,
    choose_again: bool = False,
) -> Project:
    """The project that an argument or --spec names. Raises InputError."""
    from koinize.pipeline import Project

    file = spec_file(place, spec)
    return Project.at(
        file,
        retrain_comb=retrain_comb,
        new_generation=new_generation,
        choose_again=choose_again,
    )


def spec_file(place: Path | None, spec: Path | None) -> Path:
    """The koinize.yaml that an argument or --spec names, itself or by its folder.

    Raises InputError where both name one.
    """
    from koinize.errors import InputError
    from koinize.spec import SPEC_FILE

    if place and spec:
        raise InputError(
            f"the project is named twice, as '{place}' and with --spec '{spec}'",
            expected="one of the two",
        )
    named = place or spec or Path()
    return named / SPEC_FILE if named.is_dir() else named


def existing_spec_file(place: Path | None, spec: Path | None) -> Path:
    """The same, for commands that put up with a broken koinize.yaml, but not with none.

    Raises InputError.
    """
    from koinize.errors import InputError

    file = spec_file(place, spec)
    if not file.is_file():
        raise InputError(
            "there is no such file",
            where=str(file),
            remedy="go to a project's folder, or name it as an argument",
        )
    return file


def outside(out: Path | None) -> Path | None:
    """The place, unless koinize keeps its own files there. Raises InputError."""
    from koinize.store import refuse_own_folder

    if out is not None:
        refuse_own_folder(out)
    return out


def print_json(value: object) -> None:
    """Write one JSON document; what JSON does not know (decimals, paths, dates) becomes text."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False, default=str)
    sys.stdout.write("\n")
