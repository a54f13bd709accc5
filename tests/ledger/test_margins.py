"""Margins in the ledger: said before test was scored, or after, or never."""

import pytest

from koinize.errors import KoinizeError
from koinize.ledger import Address, Ledger, first_stated, last_stated


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl")


def scored(ledger, task="mood", split="test"):
    made = {"run": "r", "artifact": "a", "device": "d", "share": "1", "price": {}}
    address = Address("evaluate", task, language="de", split=split)
    ledger.start("r-1", step="e", kind="evaluate", address=address, **made)
    ledger.end("r-1", status="done", seconds=1)


def test_what_was_said_first_and_last(ledger):
    scored(ledger, split="dev")
    scored(ledger, task="topic")
    ledger.state_margins("mood", {"accuracy": 2.0})
    scored(ledger)
    ledger.state_margins("mood", {"accuracy": 5.0})
    ledger.state_margins("topic", {"accuracy": 1.0})
    records = list(ledger.records())
    first = first_stated(records, "mood")
    assert (first.margins, first.beforehand) == ({"accuracy": 2.0}, True)
    assert last_stated(records, "mood") == {"accuracy": 5.0}
    assert not first_stated(records, "topic").beforehand
    assert first_stated(records, "other") is last_stated(records, "other") is None
    assert len(ledger.intervals()) == 1  # one id: lines of margins are no intervals
    assert ledger.verify().records == len(records)


def test_an_odd_line_is_named(ledger):
    ledger.state_margins("mood", {"accuracy": 200.0})
    with pytest.raises(KoinizeError, match=r"its field 'margins\.accuracy'"):
        list(ledger.records())
