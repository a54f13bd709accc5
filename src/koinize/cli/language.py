"""The commands that change a project's languages: add, remove, update."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinize.cli.options import (
    PROJECT,
    AsJson,
    Place,
    SpecFile,
    open_project,
    print_json,
    spec_file,
)

if TYPE_CHECKING:
    from koinize.pipeline import Plan, Project
    from koinize.pipeline.editing import Change
    from koinize.spec.splice import Value

Language = Annotated[str, typer.Argument(help="Its code, such as sw or zh-Hant.")]
Data = Annotated[
    str | None,
    typer.Argument(help="Where its rows stand, such as 'data/sw.{split}.jsonl'."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", help="NAME of the task that DATA is for; or NAME=DATA, repeatable."),
]
Train = Annotated[str | None, typer.Option(help="Its training rows, instead of DATA.")]
Dev = Annotated[str | None, typer.Option(help="Its dev rows.")]
Test = Annotated[str | None, typer.Option(help="Its test rows.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the diff and write nothing.")]

application = typer.Typer(
    help="Add, remove or update a language in koinize.yaml.\n\n"
    "The file keeps its comments and its style.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (add, remove, update):
        application.command()(command)
    app.add_typer(application, name="language", rich_help_panel=PROJECT)


def add(
    language: Language,
    data: Data = None,
    task: Tasks = None,
    train: Train = None,
    dev: Dev = None,
    test: Test = None,
    place: Place = None,
    spec: SpecFile = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add a language.

    DATA may be left out where the tasks' templates fit its files; then name the project by --spec.
    """
    from koinize.api import languages

    splits = {"train": train, "dev": dev, "test": test}
    sources = _sources(open_project(place, spec), data, task or [], splits)
    done = languages.add(spec_file(place, spec), language, sources, write=not dry_run)
    _tell(done, dry_run=dry_run, as_json=as_json)


def remove(
    language: Language,
    place: Place = None,
    spec: SpecFile = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Begin a new generation, whose trunk never saw the language."),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove a language and all that koinize.yaml says of it.

    Its data files stay, and so does what a trunk learnt of it, unless --exact.
    """
    from koinize.api import languages
    from koinize.settings import TrunkFrom

    project = open_project(place, spec)
    done, held = languages.remove(project, language, exact=exact, write=not dry_run)
    _tell(done, dry_run=dry_run, as_json=as_json, trunk_rows=held)
    for task, rows in held.items() if not as_json else ():
        begins = ("would begin" if dry_run else "begins") if exact else ""
        own = not isinstance(project.spec.training.trunk, TrunkFrom)
        typer.echo(f"{task}: {_what_the_trunk_knows(language, rows, begins=begins, own=own)}")


def _what_the_trunk_knows(language: str, rows: int, *, begins: str = "", own: bool = True) -> str:
    """`begins` says whether a new generation does; `own` that the trunk is trained here."""
    if begins:
        return f"a new generation {begins}, without the {rows} rows of {language}"
    said = f"the trunk was trained on {rows} rows of {language} and still holds them"
    if not own:
        return f"{said}; another trunk never saw them"
    return f"{said}; `koinize run --new-generation` trains one that never saw them"


def update(
    language: Language,
    data: Data = None,
    task: Tasks = None,
    train: Train = None,
    dev: Dev = None,
    test: Test = None,
    append: Annotated[
        Path | None, typer.Option(help="Add this file's rows to its training rows.")
    ] = None,
    place: Place = None,
    spec: SpecFile = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Point a language at other data, or add training rows."""
    from koinize.api import languages
    from koinize.errors import InputError
    from koinize.pipeline.editing import append_rows
    from koinize.release import task_of

    project = open_project(place, spec)
    splits = {"train": train, "dev": dev, "test": test}
    if append is not None:
        if data or any(splits.values()) or len(task or []) > 1:
            raise InputError("--append adds to one file", remedy="leave the other data out")
        name = task_of(project, task[0] if task else None)
        done = append_rows(spec_file(place, spec), name, language, append, write=not dry_run)
    else:
        sources = _sources(project, data, task or [], splits)
        if not sources:
            raise InputError(
                f"nothing to update '{language}' with",
                expected="DATA or --append FILE",
                remedy="rows edited in place need no command: `koinize plan` sees them",
            )
        done = languages.update(spec_file(place, spec), language, sources, write=not dry_run)
    _tell(done, dry_run=dry_run, as_json=as_json)


def _sources(
    project: Project, data: str | None, tasks: list[str], splits: dict[str, str | None]
) -> dict[str, Value]:
    """Task -> where its rows stand, as far as the command line says."""
    from koinize.errors import InputError
    from koinize.release import task_of

    pairs = [one.partition("=") for one in tasks]
    found: dict[str, Value] = {task_of(project, name): of for name, sign, of in pairs if sign}
    bare = [name for name, sign, _ in pairs if not sign]
    given = {split: path for split, path in splits.items() if path}
    if given and (data or len(given) < len(splits)):
        raise InputError("--train, --dev and --test come together, instead of DATA")
    source: Value | None = given or data
    if len(bare) > 1 or (bare and not source):
        raise InputError(
            f"--task {bare[-1]} has no data",
            expected=f"one task for DATA, or --task {bare[-1]}=DATA",
        )
    if source:
        found[task_of(project, bare[0] if bare else None)] = source
    return found


def _tell(done: Change, *, dry_run: bool, as_json: bool, **more: object) -> None:
    from koinize.cli.plan_view import plan_json

    name = done.project.file.name
    if as_json:
        print_json(
            {
                "file": str(done.project.file),
                "written": not dry_run and bool(done.changes),
                "changes": list(done.changes),
                "diff": done.diff,
                "plan": plan_json(done.plan, done.project) if done.plan else None,
                **more,
            }
        )
        return
    if dry_run:
        typer.echo(done.diff, nl=False)
    elif done.changes:
        typer.echo("\n".join(done.changes))
    if not done.changes:
        typer.echo(f"{name} says so already")
    if done.plan:
        typer.echo(_summary(done.plan))
    if not dry_run:
        typer.echo("next: koinize plan, then koinize run")


def _summary(todo: Plan) -> str:
    """What a run would do now, in one line."""
    from koinize.cli.plan_view import estimate

    if not todo.missing:
        return f"nothing is missing: all {todo.total} steps are done"
    kinds = Counter(one.step.kind for one in todo.missing)
    trained = [one.step.name for one in todo.missing if one.step.kind == "train"]
    counts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    named = f" ({', '.join(trained)})" if trained else ""
    return f"a run would do {len(todo.missing)} of {todo.total} steps: {counts}{named}; " + (
        estimate(todo)
    )
