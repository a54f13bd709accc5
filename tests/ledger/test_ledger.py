"""What was spent is written down once, in a chain that shows every later change."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinize.errors import KoinizeError
from koinize.ledger import (
    Heartbeat,
    Interval,
    Ledger,
    Setback,
    by_run,
    chain,
    covered,
    elapsed,
    idle,
    joules,
    money,
    total,
)

PRICE = {"per_hour": "0.36", "currency": "USD", "source": "a list", "date": "2026-01-31"}
BEGIN, SECOND = datetime(2026, 1, 31, tzinfo=UTC), timedelta(seconds=1)
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
    ("after", "seconds", "besides"),
    [
        (12.5, "12.500", ""),
        (None, "0.000", ""),
        (-60.0, "0.000", ", which is no later than its start"),
    ],
)
def test_what_a_killed_run_left_open_is_closed_at_its_last_heartbeat(path, after, seconds, besides):
    """A heartbeat from before the step began, or none at all, leaves it without time."""
    three(path)
    start(Ledger(path), "zh")
    began = Ledger(path).intervals()[-1].started.timestamp()
    closed = Ledger(path).close_abandoned(None if after is None else began + after)
    assert [one.id for one in closed] == ["zh"]
    found = Ledger(path).intervals()
    assert [one.status for one in found] == ["done", "done", "done", "interrupted"]
    assert str(found[-1].seconds) == seconds
    assert found[-1].error == f"the run was killed; closed at its last heartbeat{besides}"
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


OLD = """\
{"event": "start", "interval": "7d1c90aa-0f3a4f0e8c11", "utc": "2026-01-31T10:00:00.000+00:00", \
"run": "7d1c90aa", "step": "train/mood/de", "kind": "train", "artifact": "0f3a4f0e8c11", \
"device": "2 cores of Some CPU", "share": "0.5", "price": {"per_hour": "0.36", "currency": "USD", \
"source": "a list", "date": "2026-01-31"}, "previous": \
"0000000000000000000000000000000000000000000000000000000000000000", "digest": \
"f291140a5f68a9bac1257ece7f5ef968ed09bc80bfddec993b83bb4d7e29a043"}
{"event": "end", "interval": "7d1c90aa-0f3a4f0e8c11", "utc": "2026-01-31T12:00:00.500+00:00", \
"status": "done", "seconds": "7200.500", "tokens": 81920, "units": 20480, "error": "", "previous": \
"f291140a5f68a9bac1257ece7f5ef968ed09bc80bfddec993b83bb4d7e29a043", "digest": \
"a27a127e993804e52365632d74f83c929fccd67e2a3313dfacf122620cdb4ceb"}
"""
"""What koinize wrote before intervals had `at` and `energy`."""


def test_an_older_ledger_verifies_reads_and_goes_on(path):
    path.parent.mkdir()
    path.write_text(OLD)
    ledger = Ledger(path)
    assert ledger.verify().records == 2
    (old,) = ledger.intervals()
    assert old == Interval(
        id="7d1c90aa-0f3a4f0e8c11",
        run="7d1c90aa",
        step="train/mood/de",
        kind="train",
        artifact="0f3a4f0e8c11",
        started=datetime(2026, 1, 31, 10, tzinfo=UTC),
        seconds=Decimal("7200.500"),
        share=Decimal("0.5"),
        device="2 cores of Some CPU",
        status="done",
        tokens=81920,
        units=20480,
        error="",
        price=PRICE,
        energy={},
    )
    assert idle([old]) == Decimal("3600.25")  # no idle time was recorded: elapsed less held
    start(ledger, "de")
    ledger.end("de", status="done", seconds=1)
    assert path.read_text().startswith(OLD)
    assert Ledger(path).verify().records == 4


@pytest.fixture
def clocks(monkeypatch):
    """The wall clock and the monotonic one, each set by hand."""
    now = {"wall": datetime(2026, 3, 1, 10, tzinfo=UTC), "monotonic": 100.0}
    wall = SimpleNamespace(now=lambda _zone: now["wall"], fromisoformat=datetime.fromisoformat)
    monkeypatch.setattr(chain, "datetime", wall)
    monkeypatch.setattr("koinize.ledger.recording.time.monotonic", lambda: now["monotonic"])

    def move(monotonic: float, wall: float) -> None:
        now["monotonic"] += monotonic
        now["wall"] += timedelta(seconds=wall)

    return move


def test_a_clock_that_goes_back_moves_nothing_and_is_told(path, clocks, caplog):
    """The wall clock is set back by an hour in the first interval, forward in the second."""
    ledger = Ledger(path)
    with ledger.recording("a", kind="train", device="d", price={}, run="r"):
        clocks(4, 4 - 3600)
    clocks(1, 1)
    with ledger.recording("b", kind="train", device="d", price={}, run="r"):
        clocks(5, 5 + 7200)
    ledger.close_run("r", ledger.at("r"), device="d", price={})
    found = Ledger(path).intervals()
    begin = datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert [(one.started - begin).total_seconds() for one in found] == [0, 5, 0]
    assert [one.seconds for one in found] == [4, 5, 10]
    assert (elapsed(found), covered(found), idle(found)) == (10, 9, 1)
    assert ledger.setbacks() == [Setback(2, Decimal(3596))]
    assert ledger.verify().records == 6
    assert [record.message for record in caplog.records] == [
        "the clock went back by 3596 s; durations do not follow it, dates do"
    ]


def test_a_killed_run_is_closed_by_its_own_clock(path, clocks):
    """Whatever the wall clock says by then: that of the file is of 1970."""
    ledger = Ledger(path)
    heartbeat = path.parent / "heartbeat"
    start(ledger, "de")
    clocks(2, 2)
    start(ledger, "en")
    clocks(3, -86400)
    Heartbeat(0.0, "r1", ledger.at("r1")).write(heartbeat)
    os.utime(heartbeat, (1, 1))
    closed = Ledger(path).close_abandoned(Heartbeat.read(heartbeat))
    assert [one.id for one in closed] == ["de", "en"]
    de, en, rest = Ledger(path).intervals()
    assert (de.seconds, en.seconds) == (5, 3)
    # 5 s of the machine, of which half was held for 5 s and half for 3 s
    assert (rest.kind, rest.seconds, rest.machine_seconds) == ("idle", 5, 1)


@pytest.mark.parametrize("written", [0, 1, 2], ids=["no", "the start of its", "the whole"])
def test_work_that_was_kept_is_done_and_so_is_the_loading_before_it(path, written):
    """Killed with the artifact there and no, some or all lines about loading the model for it."""
    ledger = Ledger(path)
    start(ledger, "de", at=Decimal(2))
    load = {"step": "load", "kind": "load", "at": Decimal(2)}
    if written:
        start(ledger, "de-load", **load)
    if written == 2:
        ledger.end("de-load", status="done", seconds=3, at=Decimal(5))
    facts = {"seconds": 4, "load_seconds": 3, "tokens": 7, "units": 9}
    kept = {"train": facts, "load": {"seconds": 3}}
    Ledger(path).close_abandoned(Heartbeat(0.0, "r1", Decimal(8)), lambda one: kept[one.kind])
    de, loading, rest = Ledger(path).intervals()
    assert (de.status, de.seconds, de.tokens, de.units) == ("done", 4, 7, 9)
    assert (loading.kind, loading.status, loading.seconds) == ("load", "done", 3)
    assert (loading.artifact, loading.share, loading.price) == (de.artifact, de.share, PRICE)
    assert loading.end == de.begin
    # From 2 s to 2 + 3 + 4 s, later than the heartbeat, half of the machine was held.
    assert (rest.kind, rest.seconds) == ("idle", 9)
    assert round(rest.machine_seconds, 6) == Decimal("5.5")
    assert Ledger(path).verify().records == 6


def test_what_was_done_at_once_shares_the_time_until_the_kill(path):
    """Of 12 s of half the machine: 3 s were de's, 4 s en's, which was kept; the rest is shared."""
    ledger = Ledger(path)
    for name in ("de", "en", "fr", "ja"):
        start(ledger, name, group="g", at=Decimal(1))
    ledger.end("de", status="done", seconds=3, at=Decimal(4))
    kept = {"en": {"seconds": 4}}
    beat = Heartbeat(0.0, "r1", Decimal(13))
    Ledger(path).close_abandoned(beat, lambda one: kept.get(one.id))
    de, en, fr, ja, rest = Ledger(path).intervals()
    assert [one.status for one in (en, fr, ja)] == ["done", "interrupted", "interrupted"]
    assert [one.seconds for one in (de, en, fr, ja)] == [3, 4, Decimal("2.5"), Decimal("2.5")]
    assert [en.begin, fr.begin, ja.begin] == [de.end, en.end, fr.end]
    assert {one.group for one in (de, en, fr, ja)} == {"g"}
    assert round(rest.machine_seconds, 6) == 13 - 6


def test_a_kill_leaves_no_half_milliseconds(path):
    """3.819 s are shared out by two: the second begins where the first ended, and has the rest."""
    ledger = Ledger(path)
    for name in ("de", "en"):
        start(ledger, name, group="g", at=Decimal("1.112"))
    Ledger(path).close_abandoned(Heartbeat(0.0, "r1", Decimal("4.931")))
    de, en, _ = Ledger(path).intervals()
    assert de.seconds + en.seconds == Decimal("3.819")
    assert {de.seconds, en.seconds} == {Decimal("1.909"), Decimal("1.910")}
    assert (en.begin - de.begin, en.end - de.begin) == (de.seconds, Decimal("3.819"))


def test_a_heartbeat_of_another_run_tells_no_more_than_its_time(path):
    start(Ledger(path), "de")
    began = Ledger(path).intervals()[0].started.timestamp()
    Ledger(path).close_abandoned(Heartbeat(began + 7, "another", Decimal(99)))
    (found,) = Ledger(path).intervals()
    assert found.seconds == pytest.approx(Decimal(7), abs=Decimal("0.001"))


@pytest.mark.parametrize("text", ["", "r1", "r1 soon", "r1 1 2", "\x00"])
def test_a_torn_heartbeat_is_as_good_as_its_time(tmp_path, text):
    """A run may be killed while it writes it."""
    path = tmp_path / "heartbeat"
    path.write_text(text)
    os.utime(path, (5, 5))
    assert Heartbeat.read(path) in (Heartbeat(5.0), None)
    assert Heartbeat.read(tmp_path / "none") is None


def test_recording_closes_as_it_ends(path, clocks):
    ledger = Ledger(path)
    what = {"kind": "gate", "device": "d", "price": PRICE}
    with ledger.recording("gate/a", **what, artifact="0a") as work:
        clocks(3600, 3600)
        work.tokens, work.units, work.energy = 5, 7, {"joules": "2.500", "source": "s"}
    with pytest.raises(ValueError, match="no"), ledger.recording("gate/b", **what):
        raise ValueError("no")
    with pytest.raises(KeyboardInterrupt), ledger.recording("gate/c", **what):
        raise KeyboardInterrupt
    one, failed, stopped = ledger.intervals()
    assert (one.step, one.kind, one.artifact, one.share) == ("gate/a", "gate", "0a", 1)
    assert (one.status, one.seconds, one.tokens, one.units) == ("done", 3600, 5, 7)
    assert (one.joules, one.cost) == (Decimal("2.5"), Decimal("0.36"))
    assert (failed.status, failed.error) == ("failed", "no")
    assert (stopped.status, stopped.error) == ("interrupted", "KeyboardInterrupt")
    assert len({one.run, failed.run, stopped.run}) == 3


@settings(max_examples=25)  # every example writes a file, line by line to the disk
@given(
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 30_000)), max_size=7),
    st.integers(1, 7),
)
def test_the_machine_time_of_a_run_adds_up_to_its_wall_time(tmp_path_factory, work, workers):
    """Whatever ran when, as long as no more than all workers had work: to a microsecond."""
    path = tmp_path_factory.mktemp("any") / "ledger.jsonl"
    ledger = Ledger(path)
    share = str(Decimal(1) / 7)  # seven workers, and at most one step for each
    what = {"run": "r", "kind": "train", "artifact": "a", "device": "d", "price": {}}
    for number, (begin, length) in enumerate(work):
        at = Decimal(begin) / 1000
        ledger.start(str(number), **what, step=str(number), share=share, at=at)
        end = at + Decimal(length) / 1000
        ledger.end(str(number), status="done", seconds=end - at, at=end)
    wall = Decimal(90 + workers)
    ledger.close_run("r", wall, device="d", price={})
    assert abs(total(ledger.intervals())[0] - wall) <= Decimal("1e-6")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_covered_time_is_that_of_a_clock_that_ticks_seconds(stretches):
    some = [replace(interval(str(n), "1", {}), started=BEGIN + s * SECOND) for s, n in stretches]
    ticks = {tick for start, length in stretches for tick in range(start, start + length)}
    assert covered(some) == len(ticks)


def test_the_clock_set_back_between_two_runs_takes_nothing_from_either():
    """The second run begins at the same time on the wall; no run goes on beside another."""
    first = [interval("60", "1", {}), replace(interval("60", "1", {}), started=BEGIN + 30 * SECOND)]
    again = [replace(one, run="s") for one in first]
    assert covered([*first, *again]) == 90 + 90


def test_idle_time_covers_nothing():
    assert covered([replace(interval("9", "0.5", {}), kind="idle")]) == 0


def test_sums_of_money_and_energy():
    euros = {**PRICE, "currency": "EUR"}
    some = [
        interval("3600", "1", PRICE),
        interval("1800", "1", PRICE),
        interval("3600", "0.5", euros),
        replace(interval("1", "1", {}), energy={"joules": "0.1", "source": "s"}),
        replace(interval("1", "1", {}), energy={"joules": "0.2", "source": "s"}, run="other"),
    ]
    assert money(some) == {"EUR": Decimal("0.18"), "USD": Decimal("0.54")}
    assert joules(some) == Decimal("0.3")
    assert joules(some[:3]) is None
    assert list(by_run(some)) == ["r", "other"]


def test_a_head_is_the_number_of_records_and_the_last_digest(path):
    assert Ledger(path).verify() == chain.Head(0, "0" * 64)
    three(path)
    last = json.loads(path.read_text().splitlines()[-1])["digest"]
    assert Ledger(path).verify() == chain.Head(6, last)


@pytest.mark.slow
def test_two_processes_keep_one_chain(path):
    """Each line waits for the other's, as when a release is judged while a run goes on."""
    program = (
        "import sys; from pathlib import Path; from koinize.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for n in range(10):\n"
        "    with ledger.recording(f's{n}', kind='gate', device='d', price={}): pass\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(2)]
    assert [one.wait(300) for one in both] == [0, 0]
    assert Ledger(path).verify().records == 40
    assert {one.status for one in Ledger(path).intervals()} == {"done"}


def test_the_documentation_has_every_field(path):
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    three(path)
    first, second = (list(json.loads(line)) for line in path.read_text().splitlines()[:2])
    other = path.with_name("of steps done at once")
    start(Ledger(other), "de", group="g")
    with_group = list(json.loads(other.read_text()))
    assert set(with_group) - set(first) == {"group"}
    tried = Ledger(path.with_name("of a gate"))
    tried.end("de", status="done", seconds=1, attempt={"task": "mood"})
    with_attempt = list(json.loads(tried.path.read_text()))
    assert set(with_attempt) - set(second) == {"attempt"}
    Ledger(other).end("de", status="interrupted", seconds=3, lost=Decimal(1))
    with_lost = list(json.loads(other.read_text().splitlines()[1]))
    assert set(with_lost) - set(second) == {"lost"}
    tables = page.split("| field of ")[1:]
    assert [re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE) for table in tables] == [
        with_group,
        [*with_attempt[:-2], "lost", *second[-2:]],
    ]
    lines = page.partition("```json records\n")[2].partition("```")[0].splitlines()
    assert [list(json.loads(line)) for line in lines] == [first, second]
