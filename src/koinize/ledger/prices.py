"""The price book: what common machines cost per hour, each with its source and date.

`prices.yaml` beside this file holds it. A price of the user's own always comes before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class ListPrice:
    """One entry: `per_hour` is a decimal, of the whole `machine`; `date` is in ISO 8601."""

    name: str
    machine: str
    per_hour: str
    currency: str
    source: str
    date: str

    def record(self) -> dict[str, str]:
        """As koinize.yaml and the ledger have a price."""
        return {
            "per_hour": self.per_hour,
            "currency": self.currency,
            "source": self.source,
            "date": self.date,
        }


@cache
def price_book() -> Mapping[str, ListPrice]:
    """Name -> price, in the order of the file."""
    from ruamel.yaml import YAML

    text = (files("koinize.ledger") / "prices.yaml").read_text(encoding="utf-8")
    entries = YAML(typ="safe", pure=True).load(text)
    return {name: ListPrice(name=name, **entry) for name, entry in entries.items()}
