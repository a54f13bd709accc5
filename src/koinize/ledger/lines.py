"""What a line of the ledger holds: whoever adds lines up finds numbers where they belong."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from koinize.errors import KoinizeError
from koinize.store.typed import Count, typed

MARGINS = "margins"
DECIMAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?")


def _decimal(text: str) -> str:
    if not DECIMAL.fullmatch(text):
        raise ValueError(f"'{text}' is no decimal number")
    return text


def _amount(text: str) -> str:
    if _decimal(text).startswith("-"):
        raise ValueError(f"'{text}' is less than 0")
    return text


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"'{text}' is no time in UTC")
    return text


def _fields(fields: dict[str, str]) -> dict[str, str]:
    if fields and "kind" not in fields:
        raise ValueError("an address has a kind")
    return fields


AddressField = Literal[
    "kind", "task", "system", "title", "language", "split", "role", "metric", "seed"
]
Fields = Annotated[dict[AddressField, str], AfterValidator(_fields)]
"""Those of an address (see `address.Address.record`); none where a line is of no step."""

Decimals = Annotated[str, AfterValidator(_decimal)]
Amount = Annotated[str, AfterValidator(_amount)]
Moment = Annotated[str, AfterValidator(_moment)]


class Price(TypedDict, total=False):
    """What an hour of the machine cost; empty where nobody said so."""

    per_hour: Amount
    currency: str
    source: str
    date: str


class Energy(TypedDict, total=False):
    """What was read of the meter; empty where there is none."""

    joules: Amount
    source: str


class Start(TypedDict):
    """An interval begins."""

    event: Literal["start"]
    interval: str
    utc: Moment
    at: NotRequired[Decimals | None]
    run: str
    step: str
    kind: str
    artifact: str
    why: NotRequired[str]
    device: str
    share: Amount
    price: Price
    address: NotRequired[Fields]
    sort: NotRequired[str]
    group: NotRequired[str]


class End(TypedDict):
    """An interval ends."""

    event: Literal["end"]
    interval: str
    utc: Moment
    at: NotRequired[Decimals | None]
    status: str
    seconds: Amount
    tokens: NotRequired[Count]
    units: NotRequired[Count]
    energy: NotRequired[Energy]
    error: NotRequired[str]
    attempt: NotRequired[dict[str, Any]]
    lost: NotRequired[Amount]


class Margins(TypedDict):
    """What a language of a task may lose from here on, in points by metric."""

    event: Literal["margins"]
    interval: Literal[""]
    utc: Moment
    task: str
    margins: dict[str, Annotated[float, Field(ge=0, le=100)]]


KINDS: dict[object, Any] = {"start": Start, MARGINS: Margins}


def checked(record: dict[str, Any], where: str) -> dict[str, Any]:
    """The record, as it is. Raises KoinizeError that names the line and the field."""
    event = record.get("event")
    kind = KINDS.get(event, End) if isinstance(event, str) else End
    remedy = "restore the file from a copy; koinize never writes such a line"
    try:
        typed(kind, record, where=where, remedy=remedy)
    except KoinizeError as error:
        error.what = f"the ledger has an odd line: {error.what}"
        raise
    return record
