"""What speaks for the ledger from outside the project: signatures and time stamps."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinize.cli.options import Place, SpecFile, existing_spec_file
from koinize.shown import message

if TYPE_CHECKING:
    from koinize.ledger import Head, Ledger
    from koinize.ledger.signatures import Signatures, Signed
    from koinize.ledger.stamps import Stamped, Stamps

BEYOND = (
    "releases, artifacts and earlier heads agree with it; whoever can write all of these files can "
    "write another story in all of them: note the head elsewhere, and give it as --head later, "
    "sign it (`koinize ledger sign`) or have it stamped (`koinize ledger stamp`)"
)

SIGNED = (
    "what was signed is as it was, for whoever trusts these keys; a whole project that was put "
    "back to an earlier day has that day's signatures: compare the last one's time with what you "
    "know"
)

STAMPED = (
    "what was stamped was there at that time and is as it was, for whoever trusts these "
    "authorities; there may have been other chains as well, stamped or not, and a whole project "
    "that was put back to an earlier day has that day's stamps: compare the last one's time with "
    "what you know"
)


def opened(place: Path | None, spec: Path | None) -> Ledger:
    """The ledger of the project; its koinize.yaml may be broken, but it has to be there."""
    from koinize.ledger import Ledger
    from koinize.store.home import FOLDER, Home

    return Ledger(Home(existing_spec_file(place, spec).parent / FOLDER).ledger)


def signatures(ledger: Ledger) -> Signatures:
    """Those on this ledger."""
    from koinize.ledger.signatures import Signatures
    from koinize.store.home import Home

    return Signatures(Home(ledger.path.parent).signatures)


def stamps(ledger: Ledger) -> Stamps:
    """Those on this ledger."""
    from koinize.ledger.stamps import Stamps
    from koinize.store.home import Home

    return Stamps(Home(ledger.path.parent).stamps)


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
    ledger = opened(place, spec)
    head = _sound(ledger, "sign", "signed")
    file = signatures(ledger).sign(head, key)
    typer.echo(f"signed: {head.records} records, head {head.digest}")
    typer.echo(message(f"wrote {file}; `koinize ledger verify --signers FILE` checks it"))


def stamp(
    authority: Annotated[
        str, typer.Option(metavar="URL", help="Ask this time stamping authority (RFC 3161).")
    ] = "",
    query: Annotated[
        Path | None, typer.Option(help="Write the question here, to be taken to an authority.")
    ] = None,
    response: Annotated[
        Path | None, typer.Option(help="Take an authority's answer to such a question.")
    ] = None,
    place: Place = None,
    spec: SpecFile = None,
) -> None:
    """Have an authority stamp where the ledger ends.

    It says that the ledger had come so far at that time, by a clock that you do not set. It gets a
    digest and a random number, and nothing else. Needs `pip install 'koinize[stamp]'`.
    """
    from koinize.errors import InputError

    if sum(map(bool, (authority, query, response))) != 1:
        raise InputError("stamp takes one of --authority, --query and --response")
    ledger = opened(place, spec)
    head = _sound(ledger, "stamp", "stamped")
    if query:
        _ask_later(stamps(ledger), head, query)
    elif response:
        _take(ledger, response)
    else:
        _ask(stamps(ledger), head, authority)


def _sound(ledger: Ledger, do: str, done: str) -> Head:
    """Where the ledger ends. Raises KoinizeError where it is empty or contradicts itself."""
    from koinize.errors import KoinizeError
    from koinize.release.audit import contradictions

    head = ledger.verify()
    if not head.records:
        raise KoinizeError(f"nothing was recorded yet, so there is nothing to {do}")
    if found := contradictions(ledger.path.parent):
        raise KoinizeError(
            f"what contradicts itself is not {done}: {found[0]}",
            remedy="`koinize ledger verify` says all of it",
        )
    return head


def _ask(kept: Stamps, head: Head, url: str) -> None:
    from koinize.ledger.authority import ask

    asked = kept.question(head)
    _tell(head, *kept.take(head, asked.nonce, ask(url, asked.request), url))


def _ask_later(kept: Stamps, head: Head, file: Path) -> None:
    from shlex import quote

    from koinize.store import refuse_own_folder
    from koinize.store.durable import refuse_existing, write_atomically

    refuse_own_folder(file)
    refuse_existing(file)
    asked = kept.question(head)
    kept.remember(head, asked)
    write_atomically(file, asked.request)
    typer.echo(f"asked for: {head.records} records, head {head.digest}")
    kind = "'Content-Type: application/timestamp-query'"
    sent = f"curl -H {kind} --data-binary {quote(f'@{file}')} URL"
    typer.echo(message(f"wrote {file}, to be sent to an authority, such as by `{sent}`"))
    typer.echo("`koinize ledger stamp --response FILE` takes its answer")


def _take(ledger: Ledger, file: Path) -> None:
    from koinize.errors import InputError, KoinizeError
    from koinize.files import read_bytes
    from koinize.ledger.authority import LARGEST

    if not file.is_file():
        raise InputError("there is no such file", where=str(file), expected="an authority's answer")
    answer, kept = read_bytes(file, LARGEST), stamps(ledger)
    head, nonce = kept.asked(answer, str(file))
    if ledger.forgotten([head]):
        raise KoinizeError("what was asked about is not on the chain any more", where=str(file))
    told = kept.take(head, nonce, answer, str(file))
    kept.forget(nonce)
    _tell(head, *told)


def _tell(head: Head, file: Path, at: datetime) -> None:
    typer.echo(f"the answer says: {head.records} records, head {head.digest}, {at.isoformat()}")
    typer.echo(
        message(
            f"wrote {file}; whose word that is has not been looked at: `koinize ledger verify "
            "--authorities FILE` does"
        )
    )


def of_signer(one: Signed, head: Head) -> str:
    """A signature in a line. `head` is where the ledger ends now."""
    later = head.records - one.head.records
    on = f"{one.head.records} records, on {one.at} by the signer's clock"
    if not one.by:
        return f"a signature on {on} is of a key that --signers does not have"
    return f"signed by {one.by}: {on}" + (f"; {later} records came later" if later > 0 else "")


def of_authority(one: Stamped, head: Head) -> str:
    """A stamp in a line."""
    later = head.records - one.head.records
    if not (one.at and one.until):
        return (
            f"a stamp on {one.head.records} records does not hold by the certificates that "
            f"--authorities has: {one.why}"
        )
    said = f"stamped by {one.by}: {one.head.records} records, at {one.at.isoformat()} by its clock"
    if later > 0:
        said += f"; {later} records came later"
    if one.until < datetime.now(UTC):
        said += (
            f"; its certificate ended on {one.until.date()}: whoever has come by its key since can "
            "write that time as well"
        )
    return said


def signature_told(one: Signed) -> dict[str, object]:
    """The same of a signature for machines."""
    told = {"records": one.head.records, "head": one.head.digest, "at": one.at}
    return {"by": one.by or None, **told}


def stamp_told(one: Stamped) -> dict[str, object]:
    """The same of a stamp for machines."""
    return {
        "by": one.by or None,
        "records": one.head.records,
        "head": one.head.digest,
        "at": one.at and one.at.isoformat(),
        "certificate_until": one.until and one.until.isoformat(),
        "why_not": one.why or None,
    }
