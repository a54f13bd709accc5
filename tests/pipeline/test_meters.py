"""What a worker on another machine measures of its own, and what its run makes of that."""

from contextlib import contextmanager
from decimal import Decimal
from types import SimpleNamespace

import pytest

from koinize.executors import Place
from koinize.ledger import Ledger
from koinize.ledger.energy import Counter, Meter
from koinize.pipeline import meters
from koinize.pipeline.account import Account, Hand
from koinize.store import Home


@pytest.fixture
def counter(monkeypatch):
    """A node whose meter stands at `counter.level` joules."""
    level = SimpleNamespace(level=100, closed=False)

    def read():
        assert not level.closed  # as NVML, which answers nobody who has left it
        return level.level

    @contextmanager
    def metering():
        yield Meter([Counter(read, 1)], "a fake meter")
        level.closed = True

    monkeypatch.setattr(meters, "metering", metering)
    monkeypatch.setattr(meters.threading, "Thread", lambda **_: SimpleNamespace(start=list))
    meters.here.cache_clear()
    yield level
    meters.here.cache_clear()
    meters._OPEN.close()


def test_a_worker_elsewhere_counts_from_where_its_work_began(counter):
    meters.begin(elsewhere=True)
    counter.level += 7
    assert meters.facts(elsewhere=True)["energy"] == {"joules": "7.000", "source": "a fake meter"}
    counter.level += 2  # another artifact of the same group
    assert meters.facts(elsewhere=True)["energy"]["joules"] == "9.000"
    counter.level += 50  # nothing in hand
    meters.begin(elsewhere=True)
    counter.level += 1
    assert meters.facts(elsewhere=True)["energy"]["joules"] == "1.000"


def test_on_the_machine_of_the_run_it_reads_no_meter(counter):
    meters.begin(elsewhere=False)
    assert set(meters.facts(elsewhere=False)) == {"peak_bytes"}


def test_without_a_meter_there_is_no_figure(monkeypatch):
    @contextmanager
    def nothing():
        yield None

    monkeypatch.setattr(meters, "metering", nothing)
    meters.here.cache_clear()
    meters.begin(elsewhere=True)
    assert set(meters.facts(elsewhere=True)) == {"peak_bytes"}
    meters.here.cache_clear()


@pytest.fixture
def account(tmp_path):
    return Account(Home(tmp_path), Ledger(tmp_path / "ledger.jsonl"), None, lambda _: {})


def hand(jobs, told="0"):
    share, zero = Decimal("0.5"), Decimal(0)
    return Hand(jobs, True, "hand", zero, zero, Place("n", "node", share), told=Decimal(told))


def facts(joules):
    return {"energy": {"joules": joules, "source": "s"}}


def test_a_step_gets_its_workers_share_and_loading_its_part_of_the_time(account):
    loading, own = account._energy(hand([]), facts("80"), Decimal(1), Decimal(3), Decimal(4))
    assert (loading["joules"], own["joules"]) == ("10.000", "30.000")  # half of 80, 1 to 3
    assert own["source"] == "s"


def test_of_a_group_the_rest_goes_to_those_that_go_on(account):
    """Half of 40 J in 4 s, of which the first had 1 s; at the end half of 100 J were counted."""
    both = hand(["other"])
    _, first = account._energy(both, facts("40"), Decimal(0), Decimal(1), Decimal(4))
    assert first["joules"] == "5.000"
    both.jobs.clear()
    _, last = account._energy(both, facts("100"), Decimal(0), Decimal(9), Decimal(9))
    assert last["joules"] == "45.000"


def test_a_step_that_failed_says_nothing_and_costs_the_next_nothing_less(account):
    both = hand(["other"])
    assert account._energy(both, {}, Decimal(0), Decimal(1), Decimal(4)) == ({}, {})
    both.jobs.clear()
    _, last = account._energy(both, facts("10"), Decimal(0), Decimal(3), Decimal(3))
    assert last["joules"] == "5.000"
