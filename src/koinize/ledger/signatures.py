"""Signatures on where the ledger ended, by OpenSSH keys (`ssh-keygen -Y`, PROTOCOL.sshsig).

A head that was noted in the project itself can be rewritten with the rest of it. A signature cannot
be, by anybody who lacks the key: the signer's statement names the number of records, the last one's
digest, and the time by the signer's own clock. It says nothing of what came later, and a project
that was put back to an earlier day as a whole has that day's signature: its time shows how old
it is.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from koinize.digest import digest
from koinize.errors import InputError, KoinizeError
from koinize.ledger.chain import Head
from koinize.store.durable import own_folder, write_atomically
from koinize.store.typed import Identity, typed_lines

RESTORE = "restore it from a copy, or remove it: what it says does not count"
NAMESPACE = "koinize-ledger"  # so that no signature on something else passes for one of these


class _Kept(TypedDict):
    """What a file holds."""

    records: Annotated[int, Field(ge=1, lt=2**53)]
    digest: Identity
    at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
    signature: str


@dataclass(frozen=True)
class Signed:
    """Somebody's word that the ledger ended at this head at that time; nobody's: `by` is empty."""

    head: Head
    at: str
    by: str = ""


class Signatures:
    """All that were made on one ledger: a file for each in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sign(self, head: Head, key: Path) -> Path:
        """Have the owner of a private key sign this head, and keep that; returns the file.

        `key` may be the public half of a key that an agent holds. Raises InputError.
        """
        if not key.is_file():
            raise InputError("there is no such key", where=str(key), expected="an OpenSSH key")
        at = datetime.now(UTC).isoformat(timespec="seconds")
        made = _ssh_keygen("sign", "-f", str(key), given=_statement(Signed(head, at)))
        if made.returncode:
            raise InputError(
                f"ssh-keygen made no signature: {_last_line(made.stderr)}", where=str(key)
            )
        kept = _Kept(records=head.records, digest=head.digest, at=at, signature=made.stdout)
        name = f"{at[:19].replace(':', '')}-{digest(kept)[:12]}.jsonl"
        path = own_folder(self.folder) / name
        write_atomically(path, json.dumps(kept) + "\n")
        return path

    def checked(self, signers: Path) -> list[Signed]:
        """Each signature with who made it, of those in an allowed_signers file; the oldest first.

        Raises InputError for a file that is not there, KoinizeError for a signature that cannot be
        read, or that somebody in the file made of another statement.
        """
        if not signers.is_file():
            raise InputError(
                "there is no such file",
                where=str(signers),
                expected="allowed signers as OpenSSH has them, such as: alice@example.org ssh-ed2"
                "5519 AAAA...",
            )
        return sorted(self._checked(signers), key=lambda one: (one.head.records, one.at))

    def __len__(self) -> int:
        return len(self._files())

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []

    def _checked(self, signers: Path) -> Iterator[Signed]:
        for path in self._files():
            for kept in typed_lines(_Kept, path, remedy=RESTORE):
                said = Signed(Head(kept["records"], kept["digest"]), kept["at"])
                with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
                    file.write(kept["signature"])
                    file.flush()
                    by = _signer(file.name, signers)
                    if by and not _holds(file.name, signers, by, said):
                        raise KoinizeError(
                            f"the key of {by} did not sign what this file says",
                            where=str(path),
                            remedy=RESTORE,
                        )
                yield Signed(said.head, said.at, by)


def _statement(said: Signed) -> str:
    head = said.head
    return f"koinize ledger\nrecords {head.records}\nhead {head.digest}\nat {said.at}\n"


def _signer(signature: str, signers: Path) -> str:
    """Whose key it is; empty where nobody in the file has it."""
    found = _ssh_keygen("find-principals", "-s", signature, "-f", str(signers))
    return found.stdout.splitlines()[0] if found.returncode == 0 and found.stdout else ""


def _holds(signature: str, signers: Path, by: str, said: Signed) -> bool:
    asked = ("-f", str(signers), "-I", by, "-s", signature)
    return _ssh_keygen("verify", *asked, given=_statement(said)).returncode == 0


def _ssh_keygen(
    what: str, *arguments: str, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `ssh-keygen -Y`; it asks for a passphrase at the terminal itself."""
    command = ["ssh-keygen", "-Y", what, "-n", NAMESPACE, *arguments]
    try:
        return subprocess.run(
            command, input=given or "", capture_output=True, encoding="utf-8", check=False
        )
    except FileNotFoundError as error:
        raise InputError(
            "ssh-keygen is not installed",
            expected="OpenSSH 8.2 or later, whose keys sign",
            remedy="install it, such as by `apt install openssh-client`",
        ) from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it does not say why"])[-1]
