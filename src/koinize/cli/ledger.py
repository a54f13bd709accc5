"""The commands of the ledger: show, verify, sign, export, prices."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinize.cli.options import ACCOUNT, AsJson, Place, SpecFile, existing_spec_file, print_json
from koinize.shown import message

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.table import Table

    from koinize.ledger import Head, Ledger, Setback
    from koinize.ledger.signatures import Signatures, Signed
    from koinize.ledger.summary import Sum

BEYOND = (
    "releases, artifacts and earlier heads agree with it; whoever can write all of these files can "
    "write another story in all of them: note the head elsewhere, and give it as --head later, or "
    "sign it (`koinize ledger sign`)"
)

SIGNED = (
    "what was signed is as it was, for whoever trusts these keys; a whole project that was put "
    "back to an earlier day has that day's signatures: compare the last one's time with what you "
    "know"
)

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

    ledger = _ledger(place, spec)
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
    as_json: AsJson = False,
) -> None:
    """Check that no line was changed, dropped or moved.

    And that the ledger tells what releases and artifacts tell. Says where the chain ends.
    """
    from koinize.release.audit import contradictions, unsigned

    ledger = _ledger(place, spec)
    head, setbacks = ledger.verify(), ledger.setbacks()
    found = contradictions(ledger.path.parent)
    if noted and not ledger.has(noted):
        found.append(f"no record of the ledger has the digest {noted}, which --head asks for")
    signed = _signatures(ledger).checked(signers) if signers else []
    if signers:
        found += unsigned(ledger, signed, signers)
    if as_json:
        told = {"records": head.records, "head": head.digest, "contradictions": found}
        by_whom = {"signed": [_told(one) for one in signed]} if signers else {}
        print_json({**told, "clock_set_back": _json(setbacks), **by_whom})
    else:
        typer.echo(f"{head.records} records, each follows from the one before it")
        typer.echo(f"head {head.digest}")
        signers_said = [_by_whom(one, head) for one in signed]
        for line in (*_warnings(setbacks), *signers_said, *found):
            typer.echo(message(line))
        if not found:
            typer.echo(SIGNED if signers else BEYOND)
        if not signers and (kept := len(_signatures(ledger))):
            typer.echo(f"signatures that were not looked at: {kept}; --signers FILE checks them")
    if found:
        raise typer.Exit(1)


@group.command()
def sign(
    key: Annotated[
        Path,
        typer.Option(help="An OpenSSH private key, or the public half of one that an agent holds."),
    ],
    place: Place = None,
    spec: SpecFile = None,
) -> None:
    """Sign where the ledger ends, with an OpenSSH key.

    Who has no such key can then write no other story for what was signed.
    """
    from koinize.errors import KoinizeError
    from koinize.release.audit import contradictions

    ledger = _ledger(place, spec)
    head = ledger.verify()
    if not head.records:
        raise KoinizeError("nothing was recorded yet, so there is nothing to sign")
    if found := contradictions(ledger.path.parent):
        raise KoinizeError(
            f"what contradicts itself is not signed: {found[0]}",
            remedy="`koinize ledger verify` says all of it",
        )
    file = _signatures(ledger).sign(head, key)
    typer.echo(f"signed: {head.records} records, head {head.digest}")
    typer.echo(message(f"wrote {file}; `koinize ledger verify --signers FILE` checks it"))


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

    intervals = _ledger(place, spec).intervals()
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


def _ledger(place: Path | None, spec: Path | None) -> Ledger:
    """The ledger of the project; its koinize.yaml may be broken, but it has to be there."""
    from koinize.ledger import Ledger
    from koinize.store.home import FOLDER, Home

    return Ledger(Home(existing_spec_file(place, spec).parent / FOLDER).ledger)


def _signatures(ledger: Ledger) -> Signatures:
    from koinize.ledger.signatures import Signatures
    from koinize.store.home import Home

    return Signatures(Home(ledger.path.parent).signatures)


def _by_whom(one: Signed, head: Head) -> str:
    later = head.records - one.head.records
    on = f"{one.head.records} records, on {one.at} by the signer's clock"
    if not one.by:
        return f"a signature on {on} is of a key that --signers does not have"
    return f"signed by {one.by}: {on}" + (f"; {later} records came later" if later > 0 else "")


def _told(one: Signed) -> dict[str, object]:
    told = {"records": one.head.records, "head": one.head.digest, "at": one.at}
    return {"by": one.by or None, **told}


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
