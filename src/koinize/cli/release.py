"""The commands of releases: promote, rollback, history, diff, gc, doctor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from koinize.cli.options import SPEC, AsJson, SpecFile, TaskName, open_project, print_json

ChannelName = Annotated[str, typer.Option("--channel", help="production or staging.")]
PRODUCTION = "production"


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (promote, rollback, history, diff, gc, doctor):
        app.command()(command)


def promote(
    spec: SpecFile = SPEC,
    channel: ChannelName = PRODUCTION,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Put the chosen merge into use, if it is shown that no language gets worse."""
    from koinize import release

    project = open_project(spec)
    done = release.promote(project, release.task_of(project, task), channel)
    if as_json:
        print_json(done.to_dict())
    done.refuse()
    if as_json or done.release is None:
        return
    from koinize.release.text import verdict_lines

    lines = verdict_lines(done.judgement) if done.judgement.comparisons else []
    lines += done.judgement.notes
    if done.switched:
        lines.append(f"{done.task}: {channel} is now {done.release.name}, {done.release.folder}")
    typer.echo("\n".join(lines))


def rollback(
    spec: SpecFile = SPEC,
    channel: ChannelName = PRODUCTION,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Put the release before into use again."""
    from koinize import release

    project = open_project(spec)
    name = release.task_of(project, task)
    event = release.rollback(project, name, channel).events[-1]
    if as_json:
        print_json({"task": name, "channel": channel, **asdict(event)})
    else:
        typer.echo(f"{name}: {channel} is v{event.version} again, no longer v{event.before}")


def history(spec: SpecFile = SPEC, task: TaskName = None, as_json: AsJson = False) -> None:
    """Show what was promoted and rolled back, on every channel."""
    from koinize.release import CHANNELS, Releases, task_of
    from koinize.release.text import aligned

    project = open_project(spec)
    names = [task_of(project, task)] if task else sorted(project.spec.tasks)
    channels = [
        (name, Releases(project.home, name).channel(one)) for name in names for one in CHANNELS
    ]
    rows: list[dict[str, Any]] = [
        {"task": name, "channel": one.name, **asdict(event), "in_use": event is one.events[-1]}
        for name, one in channels
        for event in one.events
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo("nothing was promoted yet")
        return
    head = ["task", "channel", "when", "what", "release", "before", ""]
    typer.echo(
        "\n".join(
            aligned(
                head,
                (
                    [
                        row["task"],
                        row["channel"],
                        row["utc"],
                        row["action"],
                        f"v{row['version']}",
                        f"v{row['before']}" if row["before"] else "-",
                        "in use" if row["in_use"] else "",
                    ]
                    for row in rows
                ),
            )
        )
    )


def diff(
    before: Annotated[str, typer.Argument(help="A release, such as v3.")],
    after: Annotated[str, typer.Argument(help="Another one of the same task.")],
    spec: SpecFile = SPEC,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two releases: data, settings, scores, cost."""
    from koinize.release import Releases, changes, task_of, version_of

    project = open_project(spec)
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
    spec: SpecFile = SPEC,
    delete: Annotated[
        bool, typer.Option("--delete/--dry-run", help="Remove it, or only say what could go.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the artifacts that no step of today, no name and no release refers to."""
    from koinize.release import collect, garbage
    from koinize.release.text import aligned

    project = open_project(spec)
    found = collect(project) if delete else garbage(project)
    size = sum(one.bytes for one in found)
    if as_json:
        listed = [asdict(one) for one in found]
        print_json({"deleted": delete, "bytes": size, "artifacts": listed})
        return
    if found:
        rows = [[one.name, one.id[:12], f"{one.bytes / 1e6:.3f} MB"] for one in found]
        typer.echo("\n".join(aligned(["artifact", "id", "size"], rows)))
    did = "removed" if delete else "could be removed with --delete"
    typer.echo(f"{len(found)} artifacts, {size / 1e6:.3f} MB, {did}")


def doctor(
    spec: SpecFile = SPEC,
    mend: Annotated[
        bool, typer.Option("--mend", help="Remove what is broken and can be made again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check versions, devices, disk, lock, ledger, artifacts and releases; say how to mend them."""
    from koinize.errors import KoinizeError
    from koinize.release import doctor

    root = spec if spec.is_dir() else spec.parent
    for did in doctor.mend(root) if mend else ():
        typer.echo(did, err=as_json)
    checks = doctor.examine(root)
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
