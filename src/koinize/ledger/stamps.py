"""Stamps on where the ledger ended, by time stamping authorities (RFC 3161).

A signature says who; its time is by the signer's own clock. A stamp says when, by a clock that the
project's owner does not choose: at that time there was this number of records, the last of which
has this digest. It says nothing of what came later, and not that there was no other chain: whoever
keeps two can have both stamped. A project that was put back to an earlier day as a whole has that
day's stamps.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from koinize.digest import digest
from koinize.errors import InputError, KoinizeError
from koinize.ledger.chain import Head
from koinize.ledger.tokens import (
    NoTokenError,
    Question,
    Voucher,
    certificates,
    certified,
    fits,
    question,
    require_library,
    token,
    vouched,
)
from koinize.store.durable import own_folder, write_atomically
from koinize.store.typed import Identity, typed_lines

RESTORE = "restore it from a copy, or remove it: what it says does not count"
ASKED = "asked"  # the folder of the questions whose answers are still to come
MOST_NONCES = 2**64  # what the library asks with lies below


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is no base64") from None
    return text


class _Statement(TypedDict):
    """What a stamp is on."""

    records: Annotated[int, Field(ge=1, lt=2**53)]
    digest: Identity


class _Asked(_Statement):
    """What a file in `asked` holds: a question that was written down to be taken elsewhere."""

    nonce: Annotated[int, Field(ge=0, lt=MOST_NONCES)]


class _Kept(_Statement):
    """What a file holds: `answer` is the authority's, whole."""

    answer: Annotated[str, AfterValidator(_base64)]


@dataclass(frozen=True)
class Stamped:
    """A stamp on this head. Of an authority that nobody named `by` is empty and `why` says what is
    missing; `at`, the time by its clock, and `until`, the end of its certificate, are then None.
    """

    head: Head
    at: datetime | None = None
    by: str = ""
    until: datetime | None = None
    why: str = ""


class Stamps:
    """All that were made on one ledger: a file for each in `folder`.

    Whatever asks, takes or checks raises InputError where rfc3161-client is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def question(self, head: Head) -> Question:
        """A question for a stamp on this head, for `take` to be given with its answer."""
        require_library()
        return question(statement(head))

    def take(self, head: Head, nonce: int, answer: bytes, where: str) -> tuple[Path, datetime]:
        """Keep the answer to a question for a stamp on this head; returns the file and the time.

        Who gave it is not looked at. Raises InputError for what is no answer to that question.
        """
        try:
            found = token(answer)
            if found.nonce != nonce:
                raise NoTokenError("answers another question: its nonce is not what was asked")
            if not fits(answer, statement(head)):
                raise NoTokenError("stamps something else than what was asked")
            if not certified(answer):
                raise NoTokenError("has no certificate of the authority")
        except NoTokenError as error:
            raise InputError(str(error), where=where) from None
        text = base64.b64encode(answer).decode()
        kept = _Kept(records=head.records, digest=head.digest, answer=text)
        name = f"{found.at.isoformat()[:19].replace(':', '')}-{digest(kept)[:12]}.jsonl"
        path = own_folder(self.folder) / name
        write_atomically(path, json.dumps(kept) + "\n")
        return path, found.at

    def remember(self, head: Head, asked: Question) -> None:
        """Keep what was asked, to know the answer by when somebody brings it."""
        own_folder(self.folder)
        own_folder(self.folder / ASKED)
        one = _Asked(records=head.records, digest=head.digest, nonce=asked.nonce)
        write_atomically(self._question(asked.nonce), json.dumps(one) + "\n")

    def asked(self, answer: bytes, where: str) -> tuple[Head, int]:
        """What this answers: the head that was asked about, and the nonce.

        Raises InputError where there is no such question, KoinizeError for one that is broken.
        """
        require_library()
        try:
            nonce = token(answer).nonce
        except NoTokenError as error:
            raise InputError(str(error), where=where) from None
        if nonce is not None and 0 <= nonce < MOST_NONCES:
            path = self._question(nonce)
            for one in typed_lines(_Asked, path, remedy="ask again") if path.is_file() else []:
                return Head(one["records"], one["digest"]), one["nonce"]
        raise InputError(
            "answers no question of this project that is still open",
            where=where,
            remedy="`koinize ledger stamp --query FILE` writes one, which takes one answer",
        )

    def forget(self, nonce: int) -> None:
        """Drop a question that was answered."""
        self._question(nonce).unlink(missing_ok=True)

    def checked(self, authorities: Path) -> list[Stamped]:
        """Each stamp with whose it is, by the certificates in a PEM file; the fewest records first.

        Raises InputError for a file that is not there or holds no certificate, KoinizeError for a
        stamp that cannot be read, or is on another statement than the one beside it.
        """
        require_library()
        named = certificates(authorities)
        return sorted(self._checked(named), key=lambda one: (one.head.records, str(one.at)))

    def __len__(self) -> int:
        return len(self._files())

    def _question(self, nonce: int) -> Path:
        return self.folder / ASKED / f"{nonce:016x}.jsonl"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []

    def _checked(self, named: list[object]) -> Iterator[Stamped]:
        for path in self._files():
            for kept in typed_lines(_Kept, path, remedy=RESTORE):
                head = Head(kept["records"], kept["digest"])
                answer = base64.b64decode(kept["answer"])
                try:
                    yield _stamped(head, answer, named)
                except NoTokenError as error:
                    raise KoinizeError(str(error), where=str(path), remedy=RESTORE) from None


def statement(head: Head) -> bytes:
    """What is stamped: the SHA-256 of this is the token's imprint."""
    return f"koinize ledger\nrecords {head.records}\nhead {head.digest}\n".encode()


def _stamped(head: Head, answer: bytes, named: list[object]) -> Stamped:
    if not fits(answer, statement(head)):
        raise NoTokenError("the stamp is on something else than what this file says")
    found: Voucher = vouched(answer, statement(head), named)
    if not found.by:
        return Stamped(head, why=found.why)
    return Stamped(head, token(answer).at, found.by, found.until)
