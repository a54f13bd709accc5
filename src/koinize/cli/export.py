"""`koinize export`: releases, and what was measured, for the tools of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from koinize.cli.hub import card
from koinize.cli.options import (
    RELEASES,
    AsJson,
    Place,
    SpecFile,
    TaskName,
    open_project,
    print_json,
)

Out = Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; must not exist.")]
RELEASE = "release"


class Exports(TyperGroup):
    """What is named first is a release where it is no command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - of click
        """As of any group of commands."""
        from koinize.errors import nearest
        from koinize.release import CHANNELS

        # Of a mistyped command click says which one may be meant.
        is_command = nearest(args[0], [*self.commands, *CHANNELS]) in self.commands
        return super().resolve_command(ctx, args if is_command else [RELEASE, *args])


application = typer.Typer(
    cls=Exports,
    help="Write releases and results for the tools of others.\n\n"
    "`koinize export v3 DIR --to vllm` is short for `koinize export release v3 DIR --to vllm`.",
    no_args_is_help=True,
    rich_markup_mode=None,
    # They are for the command that is not named.
    context_settings={"ignore_unknown_options": True},
)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    application.command(RELEASE)(release)
    application.command("lm-eval")(lm_eval)
    for command in (card, mlflow, prometheus, rows):
        application.command()(command)
    app.add_typer(application, name="export", rich_help_panel=RELEASES)


def release(
    named: Annotated[
        str,
        typer.Argument(metavar="RELEASE", help="Such as v3; or production or staging: as in use."),
    ],
    out: Out,
    place: Place = None,
    *,
    to: Annotated[str, typer.Option(help="peft, fused, gguf, vllm or sglang.")],
    spec: SpecFile = None,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Write a release as one tool takes it.

    The adapter for PEFT, vLLM, SGLang or llama.cpp, or the base model with it added.
    """
    from koinize import export
    from koinize.cli.modules_progress import counting_modules
    from koinize.errors import Interrupted
    from koinize.release import task_of

    project = open_project(place, spec)
    found = export.source(project, task_of(project, task), named)
    try:
        with counting_modules(quiet=as_json) as progress:
            done = export.export(found, to, out, progress)
    except KeyboardInterrupt:
        raise Interrupted("stopped", remedy="nothing was written") from None
    if as_json:
        print_json({"out": str(done.out), **done.record})
        return
    typer.echo(f"{done.out}: release {found.release.name} of {found.task}, for {to}")
    typer.echo("\n".join(done.says))


def rows(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .csv or .parquet.")],
    place: Place = None,
    spec: SpecFile = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this one.")] = None,
) -> None:
    """Write every answer of every system.

    One row for each, with its task, language, split, key, truth and scores.
    """
    from koinize.release import task_of
    from koinize.tracking.rows import write_rows

    project = open_project(place, spec)
    tasks = [task_of(project, task)] if task else list(project.spec.tasks)
    count = write_rows(project, tasks, out)
    typer.echo(f"wrote {count} rows to {out}")


def prometheus(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .prom.")],
    place: Place = None,
    spec: SpecFile = None,
) -> None:
    """Write costs and releases for Prometheus.

    A textfile, as the node exporter reads it.
    """
    from koinize.tracking.prometheus import write_textfile

    count = write_textfile(open_project(place, spec), out)
    typer.echo(f"wrote {count} samples to {out}")


def mlflow(
    place: Place = None,
    spec: SpecFile = None,
    uri: Annotated[
        str | None, typer.Option("--uri", help="Of MLflow; MLFLOW_TRACKING_URI if not given.")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="The project's name if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send runs, scores and releases to MLflow.

    What is there already is not sent again. Channels are aliases of the registered model.
    """
    from dataclasses import asdict

    from koinize.tracking.mlflow import send

    sent = send(open_project(place, spec), uri, experiment)
    if as_json:
        print_json(asdict(sent))
        return
    typer.echo(f"{sent.new} records sent, {sent.known} were there")
    for release in sent.releases:
        typer.echo(f"registered {release}")
    for alias, version in sent.aliases.items():
        typer.echo(f"{alias} is version {version}")
    for note in sent.notes:
        typer.echo(f"note: {note}", err=True)


def lm_eval(
    out: Out,
    place: Place = None,
    spec: SpecFile = None,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Write the test rows as tasks of lm-evaluation-harness.

    With the command for every system that was scored, and for every release.
    """
    from koinize import export
    from koinize.release import task_of

    project = open_project(place, spec)
    done = export.export_tasks(project, task_of(project, task), out)
    if as_json:
        print_json({"out": str(done.out), **done.record()})
        return
    typer.echo(f"{done.out}: {done.rows} rows in {', '.join(project.spec.languages)}")
    typer.echo("\n".join(done.notes))
    for system, commands in done.commands.items():
        typer.echo("\n".join(["", f"# {system}", *commands]))
