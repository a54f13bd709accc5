"""The merge engine alone: PEFT folders in, one PEFT folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (merge, recipes):
        app.command()(command)


def merge(
    adapters: Annotated[list[str], typer.Argument(help="LANGUAGE=FOLDER, one for each language.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The PEFT folder to write.")],
    recipe: Annotated[str, typer.Option(help="See `koinize recipes`.")] = "knots-ties",
    density: Annotated[float, typer.Option(help="Share of entries kept.")] = 1.0,
) -> None:
    """Merge PEFT LoRA folders into one."""
    from koinize.engine import merge_adapters
    from koinize.errors import InputError

    folders: dict[str, Path] = {}
    for given in adapters:
        language, equals, folder = given.partition("=")
        if not equals or language in folders:
            what = f"'{given}' is not LANGUAGE=FOLDER" if not equals else f"'{language}' is twice"
            raise InputError(what, expected="each language once, as in en=adapters/en")
        folders[language] = Path(folder)
    report = merge_adapters(folders, recipe=recipe, density=density, out=out)
    typer.echo(f"wrote {report.out}, rank {report.rank}")


def recipes() -> None:
    """List the merge recipes and their papers."""
    from koinize.recipe import RECIPES

    for name in RECIPES.names():
        found = RECIPES.get(name)
        typer.echo(f"{name:18} {found.title} ({found.paper})")
