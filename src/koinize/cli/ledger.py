"""The commands of the ledger: show, verify, sign, stamp, export, prices."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinize.cli.options import ACCOUNT, AsJson, Place, SpecFile, print_json
from koinize.cli.vouching import (
    BEYOND,
    SIGNED,
    STAMPED,
    of_authority,
    of_signer,
    opened,
    sign,
    signature_told,
    signatures,
    stamp,
    stamp_told,
    stamps,
)
from koinize.shown import message

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.table import Table

    from koinize.ledger import Ledger, Setback
    from koinize.ledger.summary import Sum

group = typer.Typer(
    name="ledger",
    help="Show, check and export what was spent.\n\nTime on both clocks, money and energy.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add this group of commands to the application."""
    app.add_typer(group, rich_help_panel=ACCOUNT)


@group.command()
def show(place: Place = None, spec: SpecFile = None, as_json: AsJson = False) -> None:
    """Show what was spent, by kind of work and by run."""
    from decimal import Decimal

    from koinize.ledger.summary import everything, kinds, runs

    ledger = opened(place, spec)
    intervals = ledger.intervals()
    by_kind, by_run, whole = kinds(intervals), runs(intervals), everything(intervals)
    setbacks = ledger.setbacks()
    if as_json:
        print_json(
            {
                "kinds": {name: one.to_dict() for name, one in by_kind.items()},
                "runs": [one.to_dict() for one in by_run],
                "total": whole.to_dict(),
                "clock_set_back": _json(setbacks),
            }
        )
        return
    if not intervals:
        typer.echo("nothing was recorded yet")
        return
    _print_tables(
        _table("kind of work", [*by_kind.items(), ("all", whole)]),
        _table("run begun (UTC)", ((one.started[:19], one.sum) for one in by_run)),
    )
    ended = [one.lost for one in intervals if one.lost is not None]
    if ended:
        lost = f"{sum(ended, Decimal(0)):.3f} s of their work was lost"
        trainings = "training was" if len(ended) == 1 else "trainings were"
        typer.echo(f"{len(ended)} {trainings} ended and saved, for others to go on: {lost}")
    for line in _warnings(setbacks):
        typer.echo(line)


@group.command()
def verify(
    place: Place = None,
    spec: SpecFile = None,
    noted: Annotated[
        str, typer.Option("--head", help="A head that was noted elsewhere: is it on the chain?")
    ] = "",
    signers: Annotated[
        Path | None,
        typer.Option(help="Whose signatures count: a file of OpenSSH's allowed signers."),
    ] = None,
    authorities: Annotated[
        Path | None,
        typer.Option(help="Whose time stamps count: a PEM file of authorities' root certificates."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that no line was changed, dropped or moved.

    And that the ledger tells what releases and artifacts tell. Says where the chain ends.
    """
    from koinize.release.audit import contradictions, unsigned, unstamped

    ledger = opened(place, spec)
    head, setbacks = ledger.verify(), ledger.setbacks()
    found = contradictions(ledger.path.parent)
    if noted and not ledger.has(noted):
        found.append(f"no record of the ledger has the digest {noted}, which --head asks for")
    signed = signatures(ledger).checked(signers) if signers else []
    stamped = stamps(ledger).checked(authorities) if authorities else []
    found += unsigned(ledger, signed, signers) if signers else []
    found += unstamped(ledger, stamped, authorities) if authorities else []
    if as_json:
        told = {"records": head.records, "head": head.digest, "contradictions": found}
        by_whom = {"signed": [signature_told(one) for one in signed]} if signers else {}
        since = {"stamped": [stamp_told(one) for one in stamped]} if authorities else {}
        print_json({**told, "clock_set_back": _json(setbacks), **by_whom, **since})
    else:
        typer.echo(f"{head.records} records, each follows from the one before it")
        typer.echo(f"head {head.digest}")
        vouched = [of_signer(one, head) for one in signed]
        vouched += [of_authority(one, head) for one in stamped]
        for line in (*_warnings(setbacks), *vouched, *found):
            typer.echo(message(line))
        for line in _closing(ledger, signers, authorities, sound=not found):
            typer.echo(line)
    if found:
        raise typer.Exit(1)


group.command()(sign)
group.command()(stamp)


@group.command()
def export(
    place: Place = None,
    spec: SpecFile = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="The file to write; standard output without it.")
    ] = None,
) -> None:
    """Write one row of comma-separated values per interval."""
    from koinize.ledger.summary import COLUMNS, write_csv
    from koinize.store import replaceable, write_atomically

    intervals = opened(place, spec).intervals()
    if csv is None:
        write_csv(intervals, sys.stdout)
        return
    replaceable(csv, ",".join(COLUMNS), "export")
    table = StringIO(newline="")
    write_csv(intervals, table)
    write_atomically(csv, table.getvalue())
    typer.echo(f"wrote {len(intervals)} intervals to {csv}")


@group.command()
def prices(as_json: AsJson = False) -> None:
    """List the price book, for `price: {machine: NAME}` in koinize.yaml."""
    from dataclasses import asdict

    from rich.table import Table

    from koinize.ledger.prices import price_book

    book = list(price_book().values())
    if as_json:
        print_json([asdict(one) for one in book])
        return
    table = Table("name", "machine", "an hour", "on", box=None, pad_edge=False)
    for one in book:
        table.add_row(one.name, one.machine, f"{one.currency} {one.per_hour}", one.date)
    _print_tables(table)
    for source in dict.fromkeys(one.source for one in book):
        names = ", ".join(one.name for one in book if one.source == source)
        typer.echo(f"{names}: {source}")


def _closing(
    ledger: Ledger, signers: Path | None, authorities: Path | None, *, sound: bool
) -> Iterable[str]:
    """What was shown, if all is sound, and what nobody asked for."""
    if sound:
        yield from [SIGNED] * bool(signers) + [STAMPED] * bool(authorities) or [BEYOND]
    if not signers and (kept := len(signatures(ledger))):
        yield f"signatures that were not looked at: {kept}; --signers FILE checks them"
    if not authorities and (kept := len(stamps(ledger))):
        yield f"time stamps that were not looked at: {kept}; --authorities FILE checks them"


def _table(first: str, lines: Iterable[tuple[str, Sum]]) -> Table:
    from rich.table import Table

    from koinize.pipeline.estimate import duration

    table = Table(first, box=None, pad_edge=False, header_style="bold")
    for name in ("intervals", "wall time", "machine time", "cost", "energy"):
        table.add_column(name, justify="right")
    for name, one in lines:
        table.add_row(
            name,
            str(one.intervals),
            duration(float(one.wall_seconds)),
            duration(float(one.machine_seconds)),
            _money(one.cost),
            "-" if one.joules is None else f"{one.joules / 3600:.3f} Wh",
        )
    return table


def _print_tables(*tables: Table) -> None:
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)
        console.print()


def _money(cost: Mapping[str, Decimal]) -> str:
    return ", ".join(f"{currency} {amount:.4f}" for currency, amount in cost.items()) or "-"


def _json(setbacks: Iterable[Setback]) -> list[dict[str, object]]:
    return [{"line": one.line, "seconds": f"{one.seconds:.3f}"} for one in setbacks]


def _warnings(setbacks: Iterable[Setback]) -> Iterable[str]:
    for one in setbacks:
        yield (
            f"line {one.line}: the clock went back by {one.seconds:.3f} s; durations come from "
            "another clock, dates from this one"
        )
