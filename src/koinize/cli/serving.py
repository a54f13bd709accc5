"""`koinize check-serving`: whether a server really serves an adapter, in words."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from koinize.pipeline import Project
    from koinize.release import Serve
    from koinize.serving import Subject, Verification

LINE_SECONDS = 5.0  # at most one line of progress in this time
BaseModel = Annotated[
    str | None, typer.Option("--base", help="Without a project: the base model of --adapter.")
]
Rows = Annotated[
    list[str] | None,
    typer.Option(help="Without a project: LANGUAGE=FILE with `prompt` or `messages`."),
]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")]
ApiKey = Annotated[
    str, typer.Option(envvar="OPENAI_API_KEY", help="Of the server.", show_default=False)
]
Serving = Annotated[
    str | None,
    typer.Option(
        "--serve",
        metavar="URL",
        help="A running vLLM or SGLang that then serves it: proven before anything is switched.",
    ),
]
ServedName = Annotated[
    str | None,
    typer.Option("--model", help="What that server calls the adapter; else the task's name."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("check-serving", rich_help_panel=RELEASES)(check_serving)


def check_serving(
    url: Annotated[str, typer.Argument(help="The server, such as http://localhost:8000/v1.")],
    place: Place = None,
    *,
    model: Annotated[str, typer.Option(help="What the server calls the adapter.")],
    base_model: Annotated[
        str | None, typer.Option(help="What it calls the base without it: compared, too.")
    ] = None,
    spec: SpecFile = None,
    task: TaskName = None,
    release: Annotated[
        str | None, typer.Option(help="A release, such as v3; else the one in use.")
    ] = None,
    channel: Annotated[str, typer.Option(help="production or staging.")] = "production",
    system: Annotated[
        str | None, typer.Option(help="A candidate of the report, such as 'ties density 0.5'.")
    ] = None,
    split: Annotated[str, typer.Option(help="Whose prompts: train, dev or test.")] = "dev",
    adapter: Annotated[Path | None, typer.Option(help="An adapter's folder instead.")] = None,
    base: BaseModel = None,
    rows: Rows = None,
    prompts: Annotated[int, typer.Option(min=3, max=1000, help="Of each language.")] = 20,
    timeout: Timeout = 60.0,
    api_key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Check that a server really serves an adapter.

    Compares the server's log-probabilities with our own. Exit code 0 only where it does.
    """
    from koinize import serving
    from koinize.errors import GateError, Interrupted
    from koinize.serving.text import verdict

    client = serving.Client(serving.address(url), serving.check_key(api_key), timeout)
    if base is not None or rows:
        subject = _of_folders(adapter, base, rows, named=(place, spec, task, release, system))
    else:
        subject = serving.of_project(
            open_project(place, spec),
            task=task,
            release=release,
            channel=channel,
            system=system,
            adapter=adapter,
            split=split,
        )
    request = serving.Request(client, model, base_model, prompts)
    try:
        found = serving.check_serving(subject, request, None if as_json else progress_lines())
    except KeyboardInterrupt:
        raise Interrupted("stopped", remedy="nothing was changed") from None
    _show(found, as_json)
    if not found.is_right:
        raise GateError(verdict(found), where=f"{found.url} as '{model}'")


def _of_folders(
    adapter: Path | None, base: str | None, rows: list[str] | None, named: tuple[object, ...]
) -> Subject:
    from koinize import serving
    from koinize.cli.words import key_values
    from koinize.errors import InputError

    if adapter is None or base is None or not rows or any(named):
        raise InputError(
            "without a project, --adapter, --base and --rows belong together",
            expected="all three of them and no project, or a project and neither --base nor --rows",
        )
    pairs = key_values(rows, "LANGUAGE=FILE")
    return serving.of_folders(adapter, base, {one: Path(file) for one, file in pairs.items()})


def _show(found: Verification, as_json: bool) -> None:
    from koinize.serving.text import lines, record

    if as_json:
        print_json(record(found))
    else:
        typer.echo("\n".join(lines(found)))


def progress_lines() -> Callable[[str, int, int], None]:
    """Lines on standard error: when something else begins, and every few seconds."""
    last: dict[str, Any] = {"what": "", "time": 0.0}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != last["what"] or now - last["time"] >= LINE_SECONDS:
            last.update(what=what, time=now)
            sys.stderr.write(f"{what}: {done} of {total}\n")

    return report


def asked_at(url: str) -> str:
    """The address that is really asked, without the keys that a URL may have."""
    from koinize.serving import address

    return address(url)


def follower(
    project: Project,
    task: str,
    url: str | None,
    model: str | None,
    *,
    timeout: float,
    api_key: str,
    quiet: bool,
) -> Serve:
    """Lets the server at this address follow a channel; without one nobody does.

    Raises InputError for a server that could not.
    """
    from koinize import release
    from koinize.errors import InputError

    if url is None and model is not None:
        raise InputError("--model is what a server calls the adapter", expected="--serve URL, too")
    if url is None:
        return release.not_served
    from koinize import serving  # which needs torch, and a promotion alone does not

    client = serving.Client(serving.address(url), serving.check_key(api_key), timeout)
    return serving.follower(project, task, client, model, None if quiet else progress_lines())
