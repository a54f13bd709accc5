"""What was spent is written down once, in a chain that shows every later change."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from koinize.errors import KoinizeError
from koinize.ledger import Interval, Ledger, total

PRICE = {"per_hour": "0.36", "currency": "USD", "source": "a list", "date": "2026-01-31"}
CHANGED = (
    "the ledger was changed: this line does not follow from the one before it; "
    "restore the file from a copy; koinize never edits a line"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "ledger.jsonl"


def start(ledger: Ledger, name: str, **differing: object) -> None:
    what = {
        "run": "r1",
        "step": f"train/mood/{name}",
        "kind": "train",
        "artifact": "0a1b",
        "device": "2 cores",
        "share": "0.5",
        "price": PRICE,
        **differing,
    }
    ledger.start(name, **what)


def three(path) -> None:
    """Six lines: the languages de, en and ja, one after the other."""
    ledger = Ledger(path)
    for name, seconds in (("de", 10), ("en", 20.25), ("ja", Decimal("7200.5"))):
        start(ledger, name)
        ledger.end(name, status="done", seconds=seconds, tokens=100, units=30)


def interval(seconds: str, share: str, price: dict[str, str]) -> Interval:
    return Interval(
        id="i",
        run="r",
        step="train/mood/de",
        kind="train",
        artifact="0a",
        started=datetime(2026, 1, 31, tzinfo=UTC),
        seconds=Decimal(seconds),
        share=Decimal(share),
        device="2 cores",
        status="done",
        tokens=0,
        units=0,
        error="",
        price=price,
    )


def test_no_file_is_an_empty_ledger(path):
    assert Ledger(path).intervals() == []
    assert Ledger(path).close_abandoned(None) == []
    assert not path.exists()


def test_what_was_written_comes_back(path):
    before = datetime.now(UTC)
    three(path)
    after = datetime.now(UTC)
    found = Ledger(path).intervals()
    assert [one.id for one in found] == ["de", "en", "ja"]
    assert [str(one.seconds) for one in found] == ["10.000", "20.250", "7200.500"]
    first = found[0]
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= first.started <= after
    assert replace(first, started=before) == Interval(
        id="de",
        run="r1",
        step="train/mood/de",
        kind="train",
        artifact="0a1b",
        started=before,
        seconds=Decimal("10.000"),
        share=Decimal("0.5"),
        device="2 cores",
        status="done",
        tokens=100,
        units=30,
        error="",
        price=PRICE,
    )


@pytest.mark.parametrize(
    ("seconds", "share", "price", "machine_seconds", "cost"),
    [
        ("7200.500", "0.5", PRICE, "3600.25", "0.360025"),
        ("0.100", "1", {**PRICE, "per_hour": "36"}, "0.1", "0.001"),
        ("0.300", "0.333333", PRICE, "0.0999999", "0.00000999999"),
        ("3600", "1", {}, "3600", "0"),
    ],
)
def test_cost_is_exact(seconds, share, price, machine_seconds, cost):
    """Paper: wall seconds x share = machine seconds; / 3600 x price per hour = cost."""
    one = interval(seconds, share, price)
    assert one.machine_seconds == Decimal(machine_seconds)
    assert one.cost == Decimal(cost)


def test_totals_add_up_without_rounding():
    """Ten times 0.1 s is 1 s, as it is not with binary fractions."""
    ten = [interval("0.100", "1", {**PRICE, "per_hour": "3600"})] * 10
    assert total(ten) == (Decimal(1), Decimal(1))
    assert total([]) == (Decimal(0), Decimal(0))


def test_seconds_are_kept_to_the_millisecond(path):
    ledger = Ledger(path)
    start(ledger, "de")
    ledger.end("de", status="failed", seconds=1.23456, error="no room")
    (found,) = ledger.intervals()
    assert (str(found.seconds), found.status, found.error) == ("1.235", "failed", "no room")


def test_every_changed_byte_is_found_with_its_line(path):
    ledger = Ledger(path)
    start(ledger, "de")
    ledger.end("de", status="done", seconds=1)
    content = path.read_bytes()
    line = 1
    for index, byte in enumerate(content[:-1]):
        path.write_bytes(content[:index] + bytes([byte ^ 0x01]) + content[index + 1 :])
        with pytest.raises(KoinizeError) as caught:
            list(Ledger(path).records())
        assert str(caught.value) == f"{path}:{line} {CHANGED}"
        line += byte == ord("\n")


@pytest.mark.parametrize(
    ("order", "bad"),
    [
        ([1, 2, 3, 4, 5], 1),  # the first is gone
        ([0, 1, 3, 4, 5], 3),  # one in the middle is gone
        ([0, 1, 3, 2, 4, 5], 3),  # two have changed places
        ([0, 1, 1, 2, 3, 4, 5], 3),  # one stands twice
    ],
)
def test_lines_that_are_dropped_moved_or_repeated_are_found(path, order, bad):
    three(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[index] for index in order))
    with pytest.raises(KoinizeError) as caught:
        Ledger(path).intervals()
    assert str(caught.value) == f"{path}:{bad} {CHANGED}"


@pytest.mark.parametrize("line", [b"", b"not JSON", b"[1]", b"null", b"{}", b"\xff"])
def test_a_line_that_is_no_record_is_found(path, line):
    three(path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]) + b"\n")
    with pytest.raises(KoinizeError) as caught:
        Ledger(path).intervals()
    assert str(caught.value) == f"{path}:3 {CHANGED}"


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(path):
    three(path)
    content = path.read_bytes()
    begins = content[:-1].rfind(b"\n") + 1
    for end in range(begins, len(content)):
        path.write_bytes(content[:end])
        ledger = Ledger(path)
        assert [one.status for one in ledger.intervals()] == ["done", "done", "open"]
    ledger.end("ja", status="interrupted", seconds=1)
    assert [one.status for one in Ledger(path).intervals()] == ["done", "done", "interrupted"]
    assert path.read_bytes().startswith(content[:begins])


def test_a_line_that_a_full_disk_cut_short_is_dropped(path, monkeypatch):
    three(path)
    ledger = Ledger(path)
    start(ledger, "zh")

    def full(handle: int) -> None:
        os.ftruncate(handle, os.fstat(handle).st_size - 10)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            ledger.end("zh", status="done", seconds=1)
    assert ledger.intervals()[-1].status == "open"
    ledger.end("zh", status="failed", seconds=1)
    assert ledger.intervals()[-1].status == "failed"


def test_two_ledgers_of_one_file_keep_one_chain(path):
    one, other = Ledger(path), Ledger(path)
    start(one, "de")
    start(other, "en")
    one.end("de", status="done", seconds=1)
    other.end("en", status="done", seconds=2)
    assert [(i.id, i.status) for i in Ledger(path).intervals()] == [("de", "done"), ("en", "done")]


@pytest.mark.parametrize(
    ("after", "seconds"),
    [(12.5, "12.500"), (None, "0.000"), (-60.0, "0.000")],
)
def test_what_a_killed_run_left_open_is_closed_at_its_last_heartbeat(path, after, seconds):
    """A heartbeat from before the step began, or none at all, leaves it without time."""
    three(path)
    start(Ledger(path), "zh")
    began = Ledger(path).intervals()[-1].started.timestamp()
    closed = Ledger(path).close_abandoned(None if after is None else began + after)
    assert [one.id for one in closed] == ["zh"]
    found = Ledger(path).intervals()
    assert [one.status for one in found] == ["done", "done", "done", "interrupted"]
    assert str(found[-1].seconds) == seconds
    assert found[-1].error == "the run was killed; closed at its last heartbeat"
    assert Ledger(path).close_abandoned(began + 99) == []


def test_any_text_can_be_recorded(path):
    """A file name that is no UTF-8 comes to Python as a lone surrogate."""
    ledger = Ledger(path)
    start(ledger, "日本語\n", step="a\udcffb")
    (found,) = Ledger(path).intervals()
    assert (found.id, found.step) == ("日本語\n", "a\udcffb")


def test_a_line_is_json_with_the_digest_of_the_line_before(path):
    three(path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[0]["previous"] == "0" * 64
    assert [record["previous"] for record in records[1:]] == [
        record["digest"] for record in records[:-1]
    ]
    assert [record["event"] for record in records] == ["start", "end"] * 3


def test_the_documentation_has_every_field(path):
    page = (Path(__file__).parents[1] / "docs" / "ledger.md").read_text(encoding="utf-8")
    three(path)
    first, second = (list(json.loads(line)) for line in path.read_text().splitlines()[:2])
    tables = page.split("| field of ")[1:]
    assert [re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE) for table in tables] == [
        first,
        second,
    ]
    lines = page.partition("```json records\n")[2].partition("```")[0].splitlines()
    assert [list(json.loads(line)) for line in lines] == [first, second]
