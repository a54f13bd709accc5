"""The price book: every figure with its currency, source and date, and in what is installed."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

import pytest

from koinize.ledger.prices import price_book
from koinize.report.paper import PUBLISHED


@pytest.mark.parametrize("name", price_book())
def test_an_entry_says_what_when_and_where(name):
    price = price_book()[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert Decimal(price.per_hour) > 0
    assert re.fullmatch(r"[A-Z]{3}", price.currency)
    assert re.search(r"https://[a-z.]+/\S+", price.source)
    assert date(2020, 1, 1) < date.fromisoformat(price.date) <= date(2026, 12, 31)
    assert price.machine


def test_the_papers_price_is_derived_from_its_table_and_says_so():
    """All its rows but one are hours of the machine at that price."""
    price = price_book()["paper-2601-16127"]
    assert price.source.startswith("derived, not listed; ")
    update = PUBLISHED[1]
    assert Decimal(str(update.combined_cost)) / Decimal(str(update.combined_hours)) == Decimal(
        price.per_hour
    )
    assert Decimal(str(update.merged_cost)) / Decimal(str(update.merged_hours)) == Decimal("31.5")


def test_the_price_of_a_spec_has_the_same_keys():
    price = price_book()["aws-g5-xlarge"]
    assert price.record() == {
        "per_hour": "1.006",
        "currency": "USD",
        "source": price.source,
        "date": "2026-06-17",
    }
