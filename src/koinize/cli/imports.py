"""Merges that are written down for other tools."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinize.cli.options import ADAPTERS, AsJson, outside, print_json
from koinize.cli.words import number_or_word

if TYPE_CHECKING:
    from koinize.imports import Imported


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import", rich_help_panel=ADAPTERS)(import_mergekit)


def import_mergekit(
    configuration: Annotated[Path, typer.Argument(help="A mergekit configuration, as YAML.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", callback=outside, help="Merge at once, into this new folder."),
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="Of the written adapter, which mergekit has no word for.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a mergekit configuration over `base+lora`.

    Prints the merge as a command of koinize, or does it; says which keys cannot be kept.
    """
    from koinize.imports import read_mergekit

    found = read_mergekit(configuration)
    if rank is not None:
        found = found.with_rank(number_or_word(rank))
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if out is None:
        _show(found, as_json=as_json)
    else:
        _merge(found, out, as_json=as_json)


def _show(found: Imported, *, as_json: bool) -> None:
    """The command that does the merge."""
    from koinize.cli.merge_options import words_of

    words = ["koinize", "merge", *(f"{name}={path}" for name, path in found.adapters.items())]
    words += ["-o", "OUT", *words_of(found.settings)]
    words += ["--trunk", str(found.trunk)] if found.trunk else []
    if as_json:
        settings = found.settings.model_dump(mode="json", exclude_defaults=True)
        print_json(
            {
                "command": words,
                "adapters": found.adapters,
                "trunk": found.trunk,
                "settings": settings,
                "notes": found.notes,
            }
        )
        return
    typer.echo(shlex.join(words))


def _merge(found: Imported, out: Path, *, as_json: bool) -> None:
    from koinize.cli.merge import tell, watched
    from koinize.engine import merge_adapters

    with watched(as_json) as progress:
        report = merge_adapters(
            found.adapters, found.settings, out=out, trunk=found.trunk, progress=progress
        )
    tell(report, as_json=as_json)
