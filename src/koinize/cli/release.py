"""The commands of releases: promote, rollback, anchor, history, diff, gc, doctor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from koinize.cli.options import (
    PROJECT,
    RELEASES,
    AsJson,
    Place,
    SpecFile,
    TaskName,
    existing_spec_file,
    open_project,
    print_json,
)
from koinize.cli.serving import ApiKey, ServedName, Serving, Timeout, asked_at, follower

if TYPE_CHECKING:
    from koinize.pipeline import Plan, Project

ChannelName = Annotated[str, typer.Option("--channel", help="production or staging.")]
PRODUCTION = "production"


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for check in (gc, doctor):
        app.command(rich_help_panel=PROJECT)(check)
    for command in (promote, rollback, anchor, history, diff):
        app.command(rich_help_panel=RELEASES)(command)


def promote(
    place: Place = None,
    spec: SpecFile = None,
    channel: ChannelName = PRODUCTION,
    task: TaskName = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score/--no-score",
            help="Let the release in use answer the test rows that came after it, or compare on "
            "the rows that both answered.",
        ),
    ] = True,
    serve: Serving = None,
    model: ServedName = None,
    timeout: Timeout = 60.0,
    api_key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Put the chosen merge into use, if no language gets worse.

    That has to be shown, on the test rows and by the margins of the metrics.
    """
    from koinize import release
    from koinize.cli.plan_view import estimate
    from koinize.cli.progress import watching
    from koinize.release.text import tables

    project = open_project(place, spec)
    name = release.task_of(project, task)

    def say(todo: Plan) -> None:
        if not as_json:
            count = f"{len(todo.missing)} step" + ("s" if len(todo.missing) > 1 else "")
            what = f"scoring the release in use on new test rows: {count}"
            typer.echo(f"{what}, {estimate(todo)}")

    follows = follower(project, name, serve, model, timeout=timeout, api_key=api_key, quiet=as_json)
    with watching(quiet=as_json) as watcher:
        done = release.promote(project, name, channel, watcher if score else None, say, follows)
    served = asked_at(serve) if serve and done.release else None
    if as_json:
        print_json({**done.to_dict(), "served": served})
    done.refuse()
    if as_json or done.release is None:
        return
    lines = [*tables(done.judgement), *done.judgement.notes]
    if served:
        lines.append(f"{served} serves it as '{model or name}'")
    if done.switched:
        lines.append(f"{done.task}: {channel} is now {done.release.name}, {done.release.folder}")
    typer.echo("\n".join(lines))


def anchor(
    version: Annotated[str, typer.Argument(help="A release, such as v3.")],
    place: Place = None,
    spec: SpecFile = None,
    channel: ChannelName = PRODUCTION,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Measure drift from this release from now on.

    Until then it is measured from the channel's first one.
    """
    from koinize import release

    project = open_project(place, spec)
    name = release.task_of(project, task)
    event = release.anchor(project, name, channel, release.version_of(version)).events[-1]
    if as_json:
        print_json({"task": name, "channel": channel, **asdict(event)})
    else:
        typer.echo(f"{name}: {channel} measures drift from v{event.version}")


def rollback(
    place: Place = None,
    spec: SpecFile = None,
    channel: ChannelName = PRODUCTION,
    task: TaskName = None,
    serve: Serving = None,
    model: ServedName = None,
    timeout: Timeout = 60.0,
    api_key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Put the release before into use again."""
    from koinize import release

    project = open_project(place, spec)
    name = release.task_of(project, task)
    follows = follower(project, name, serve, model, timeout=timeout, api_key=api_key, quiet=as_json)
    event = release.rollback(project, name, channel, follows).events[-1]
    if as_json:
        print_json({"task": name, "channel": channel, **asdict(event)})
    else:
        typer.echo(f"{name}: {channel} is v{event.version} again, no longer v{event.before}")


def history(
    place: Place = None, spec: SpecFile = None, task: TaskName = None, as_json: AsJson = False
) -> None:
    """Show what was promoted, and every attempt at the gate."""
    from koinize.release import task_of

    project = open_project(place, spec)
    names = [task_of(project, task)] if task else sorted(project.spec.tasks)
    events, attempts = _events(project, names), _attempts(project, names)
    if as_json:
        print_json({"events": events, "attempts": attempts})
    elif not events:
        typer.echo("nothing was promoted yet")
    else:
        _show_events(events)
        if attempts:
            _show_attempts(attempts)


def _events(project: Project, names: Sequence[str]) -> list[dict[str, Any]]:
    from koinize.release import CHANNELS, Releases

    channels = [
        (name, Releases(project.home, name).channel(one)) for name in names for one in CHANNELS
    ]
    return [
        {"task": name, "channel": one.name, **asdict(event), "in_use": event is one.latest}
        for name, one in channels
        for event in one.events
    ]


def _attempts(project: Project, names: Sequence[str]) -> list[dict[str, Any]]:
    from koinize.release import Attempts

    return [
        {"task": name, **asdict(one), "budget_left": one.budget_left}
        for name in names
        for one in Attempts(project.home, name).all()
    ]


def _show_events(events: Sequence[dict[str, Any]]) -> None:
    from koinize.release.text import aligned

    rows = [
        [
            row["task"],
            row["channel"],
            row["utc"],
            row["action"],
            f"v{row['version']}",
            f"v{row['before']}" if row["before"] else "-",
            "in use" if row["in_use"] else "",
        ]
        for row in events
    ]
    head = ["task", "channel", "when", "what", "release", "before", ""]
    typer.echo("\n".join(aligned(head, rows)))


def _show_attempts(attempts: Sequence[dict[str, Any]]) -> None:
    from koinize.release.text import aligned, percent

    rows = [
        [
            row["task"],
            row["channel"],
            row["utc"],
            row["candidate"][:12],
            f"v{row['incumbent']}",
            str(row["trial"]),
            percent(row["level"]),
            f"{row['p_value']:.2g}",
            "passed" if row["passed"] else "refused",
            percent(row["budget_left"]),
        ]
        for row in attempts
    ]
    head = ["task", "channel", "when", "candidate", "against"]
    head += ["test", "level", "p", "verdict", "budget left"]
    typer.echo("\n" + "\n".join(aligned(head, rows)))


def diff(
    before: Annotated[str, typer.Argument(help="A release, such as v3.")],
    after: Annotated[str, typer.Argument(help="Another one of the same task.")],
    place: Place = None,
    spec: SpecFile = None,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two releases.

    Their data, settings, scores and costs.
    """
    from koinize.release import Releases, changes, task_of, version_of

    project = open_project(place, spec)
    releases = Releases(project.home, task_of(project, task))
    old, new = (releases.open(version_of(one)) for one in (before, after))
    found = changes(old, new)
    if as_json:
        print_json(found.to_dict())
        return
    typer.echo("the adapter is " + ("the same" if found.same_adapter else "another one"))
    for part in ("data", "settings", "scores", "cost"):
        entries: Sequence[tuple[str, Any, Any]] = getattr(found, part)
        typer.echo(f"\n{part}" + ("" if entries else ": no difference"))
        if entries:
            _show(found.before, found.after, entries)


def gc(
    place: Place = None,
    spec: SpecFile = None,
    delete: Annotated[
        bool, typer.Option("--delete/--dry-run", help="Remove it, or only say what could go.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the artifacts that nothing refers to, and remove them.

    No step of today, no name and no release. Without --delete they are only counted.
    """
    from koinize.release import collect, garbage
    from koinize.release.text import aligned

    project = open_project(place, spec)
    found = collect(project) if delete else garbage(project)
    size = sum(one.bytes for one in found)
    if as_json:
        listed = [asdict(one) for one in found]
        print_json({"deleted": delete, "bytes": size, "artifacts": listed})
        return
    if found:
        kinds: dict[str, list[int]] = {}
        for one in found:
            kinds.setdefault(one.kind, []).append(one.bytes)
        rows = [
            [kind, "", str(len(sizes)), f"{sum(sizes) / 1e6:.3f} MB"]
            for kind, sizes in kinds.items()
        ]
        typer.echo("\n".join(aligned(["kind", "", "artifacts", "size"], rows)))
    did = "removed" if delete else "could be removed with --delete; --json names each"
    typer.echo(f"{len(found)} artifacts, {size / 1e6:.3f} MB, {did}")


def doctor(
    place: Place = None,
    spec: SpecFile = None,
    mend: Annotated[
        bool, typer.Option("--mend", help="Remove what is broken and can be made again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the machine and all that the project keeps.

    Versions, devices, disk, lock, ledger, artifacts and releases, and how to mend them.
    """
    from koinize.errors import KoinizeError
    from koinize.release import doctor

    file = existing_spec_file(place, spec)
    root = file.parent
    for did in doctor.mend(root, file.name) if mend else ():
        typer.echo(did, err=as_json)
    checks = doctor.examine(root, file.name)
    if as_json:
        print_json([asdict(one) for one in checks])
    else:
        width = max(len(one.what) for one in checks)
        for one in checks:
            typer.echo(f"{one.state:<6}  {one.what:<{width}}  {one.detail}")
    if broken := [one for one in checks if one.state == "broken"]:
        raise KoinizeError(
            f"{len(broken)} of {len(checks)} checks found something broken",
            where=str(root),
            remedy="mend it as it says above",
        )


def _show(before: str, after: str, entries: Sequence[tuple[str, Any, Any]]) -> None:
    from koinize.release.text import aligned

    rows = [[what, _cell(old), _cell(new)] for what, old, new in entries]
    typer.echo("\n".join(f"  {line}" for line in aligned(["", before, after], rows)))


def _cell(value: Any) -> str:  # noqa: ANN401 - a setting, a score, or the facts of some rows
    if value is None:
        return "-"
    if isinstance(value, dict) and "value" in value:
        return f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}] n={value['n']}"
    if isinstance(value, dict) and "rows" in value:
        return f"{value['rows']} rows {value['digest'][:12]}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
