"""The command line: thin. Every command is a few lines over a function that others can call.

Modules are imported inside the commands, so that `--help` stays fast.
"""

from __future__ import annotations

import atexit
import signal
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from koinize import __version__, machine
from koinize.cli.terminal import guard
from koinize.errors import KoinizeError
from koinize.shown import message


class Groups(TyperGroup):
    """Commands whose help lists them in groups, one after the other as they were registered."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - of click
        """A section for each group: the names, and the first line of what each is for."""
        groups: dict[str, list[tuple[str, str]]] = {}
        width = formatter.width - 6 - max(map(len, self.commands))
        for name, command in self.commands.items():
            group = getattr(command, "rich_help_panel", None) or "Commands"
            groups.setdefault(group, []).append((name, command.get_short_help_str(width)))
        for title, lines in groups.items():
            with formatter.section(title):
                formatter.write_dl(lines)


app = typer.Typer(
    name="koinize",
    cls=Groups,
    help="One LoRA adapter per language, merged into one; re-merged when one language changes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"koinize {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@cache
def application() -> typer.Typer:
    """All commands, put together once per process however often `main` is called."""
    from koinize.cli import (
        export,
        hub,
        imports,
        language,
        ledger,
        merge,
        project,
        release,
        serving,
        show,
        whatif,
    )

    of_releases = (release, export, hub, serving)
    for part in (project, show, language, whatif, *of_releases, merge, imports, ledger):
        part.register(app)
    return app


@cache
def callable_application() -> Callable[[], object]:
    """What typer makes of it at every call: the signatures of all commands are read once."""
    return get_command(application())


def main() -> NoReturn:
    """The console script: runs a command and turns errors into one message and an exit code."""
    guard()
    commands = callable_application()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, machine.stop)
    atexit.register(_ignore_signals)
    try:
        commands()
    except KoinizeError as error:
        sys.stderr.write(f"koinize: {error}\n")
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"koinize: {message(f'{where}{error.strerror or error}')}\n")
        raise SystemExit(1) from None
    raise SystemExit(0)


def _ignore_signals() -> None:
    """Of a process that is done: while it takes itself down, a signal would be its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
