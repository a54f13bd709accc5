"""The command line: thin. Every command is a few lines over a function that others can call.

Modules are imported inside the commands, so that `--help` stays fast.
"""

from __future__ import annotations

import atexit
import signal
import sys
from functools import cache
from types import FrameType
from typing import Annotated, NoReturn

import typer

from koinize import __version__
from koinize.errors import KoinizeError

app = typer.Typer(
    name="koinize",
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
def _application() -> typer.Typer:
    """All commands, put together once per process however often `main` is called."""
    from koinize.cli import language, ledger, merge, project, release, whatif

    for part in (project, merge, release, language, ledger, whatif):
        part.register(app)
    return app


def main() -> NoReturn:
    """The console script: runs a command and turns errors into one message and an exit code."""
    application = _application()
    signal.signal(signal.SIGTERM, _interrupt)
    atexit.register(_ignore_signals)
    try:
        application()
    except KoinizeError as error:
        sys.stderr.write(f"koinize: {error}\n")
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"koinize: {where}{error.strerror or error}\n")
        raise SystemExit(1) from None
    raise SystemExit(0)


def _ignore_signals() -> None:
    """Of a process that is done: while it takes itself down, a signal would be its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end a run as Ctrl-C does: intervals closed, workers stopped."""
    raise KeyboardInterrupt
