"""What the commands of a project have in common: its file, its name, JSON for machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from koinize.pipeline import Project

SpecFile = Annotated[
    Path, typer.Option("--spec", help="The project's koinize.yaml, or the folder that holds it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
TaskName = Annotated[str | None, typer.Option("--task", help="Needed where there are several.")]
SPEC = Path("koinize.yaml")


def open_project(spec: Path, *, retrain_comb: bool = False) -> Project:
    """The project of this koinize.yaml, or of the one in this folder. Raises InputError."""
    from koinize.pipeline import Project

    return Project.at(spec_file(spec), retrain_comb=retrain_comb)


def spec_file(spec: Path) -> Path:
    """The koinize.yaml that an option names, itself or by its folder."""
    from koinize.spec import SPEC_FILE

    return spec / SPEC_FILE if spec.is_dir() else spec


def existing_spec_file(spec: Path) -> Path:
    """The same, for commands that put up with a broken koinize.yaml, but not with none.

    Raises InputError.
    """
    from koinize.errors import InputError

    file = spec_file(spec)
    if not file.is_file():
        raise InputError(
            "there is no such file",
            where=str(file),
            remedy="go to a project's folder, or name its koinize.yaml with --spec",
        )
    return file


def print_json(value: object) -> None:
    """Write one JSON document; what JSON does not know (decimals, paths, dates) becomes text."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False, default=str)
    sys.stdout.write("\n")
