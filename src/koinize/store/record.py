"""A JSON object that carries its own digest: whole and unchanged, or as if it were not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koinize.digest import digest
from koinize.files import NotRegularError, parse_json, read_bytes
from koinize.store.durable import write_atomically, write_briefly

OWN = "digest"


def write_record(path: Path, record: Mapping[str, Any], *, durably: bool = True) -> None:
    """Write it whole or not at all; the folder must be there. Raises OSError.

    A copy of what is elsewhere need not be `durably` on disk.
    """
    plain = json.loads(json.dumps(record))  # the digest is of what a reader will find
    text = json.dumps({**plain, OWN: digest(plain)}, indent=1, ensure_ascii=False)
    (write_atomically if durably else write_briefly)(path, text + "\n")


def read_record(path: Path) -> dict[str, Any] | None:
    """The object without its digest; None where the two disagree or there is nothing to read."""
    try:
        record = parse_json(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, NotRegularError, ValueError):
        return None
    if not isinstance(record, dict) or record.pop(OWN, None) != digest(record):
        return None
    return record
