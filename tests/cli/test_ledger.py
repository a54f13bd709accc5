"""The commands of the ledger: what they print, and how they end."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from koinize.ledger import Ledger, chain
from koinize.ledger.prices import price_book
from koinize.store import Store
from tests.cli.conftest import Call

PRICE = {"per_hour": "3.6", "currency": "EUR", "source": "a bill", "date": "2026-01-31"}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A run of 10 s on two workers: 2 s to start them, 3 s of a training that failed, 3 s more."""
    (tmp_path / "koinize.yaml").write_text("a broken file: [")
    ledger = Ledger(tmp_path / ".koinize" / "ledger.jsonl")
    what = {"run": "r1", "device": "2 cores", "price": PRICE}

    def add(kind: str, step: str, at: int, seconds: int, share: str, **end: object) -> None:
        name = f"r1-{step}-{at}"
        made = {"kind": kind, "step": step, "artifact": f"id of {step}"}
        ledger.start(name, **what, **made, share=share, at=Decimal(at))
        ledger.end(name, seconds=Decimal(seconds), at=Decimal(at + seconds), **end)

    add("provision", "provision", 0, 2, "1", status="done")
    add("train", "train/mood/de", 2, 3, "0.5", status="failed", error="no, room")
    energy = {"joules": "7200.000", "source": "a meter"}
    add("train", "train/mood/de", 5, 3, "0.5", status="done", tokens=7, units=9, energy=energy)
    ledger.close_run("r1", Decimal(10), device="2 cores", price=PRICE)
    return ledger


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the wall clock."""

    def at(time: str) -> None:
        fixed = SimpleNamespace(now=lambda _zone: datetime.fromisoformat(time))
        fixed.fromisoformat = datetime.fromisoformat
        monkeypatch.setattr(chain, "datetime", fixed)

    return at


@pytest.fixture
def call(tmp_path: Path, koinize: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    return partial(koinize, "ledger")


def squeezed(out: str) -> list[str]:
    """Its lines, one space between words."""
    return [" ".join(line.split()) for line in out.splitlines() if line.strip()]


def test_show_sums_by_kind_and_by_run(call: Call, ledger: Ledger) -> None:
    code, out, _ = call("show")
    assert code == 0
    lines = squeezed(out)
    assert "provision 1 2.0 s 2.0 s EUR 0.0020 -" in lines
    assert "train, failed 1 3.0 s 1.5 s EUR 0.0015 -" in lines
    assert "train 1 3.0 s 1.5 s EUR 0.0015 2.000 Wh" in lines
    assert "idle 1 2.0 s 5.0 s EUR 0.0050 -" in lines  # of 10 s, something ran in 8
    assert "all 4 10 s 10 s EUR 0.0100 2.000 Wh" in lines
    assert lines[-1].endswith(" 4 10 s 10 s EUR 0.0100 2.000 Wh")


def test_show_as_json_has_decimals_as_text(call: Call, ledger: Ledger) -> None:
    found = json.loads(call("show", "--json")[1])
    assert found["total"] == {
        "intervals": 4,
        "wall_seconds": "10",
        "machine_seconds": "10",
        "cost": {"EUR": "0.01"},
        "joules": "7200",
    }
    [run] = found["runs"]
    assert (run["run"], run["wall_seconds"], run["idle_machine_seconds"]) == ("r1", "10", "5")
    assert list(found["kinds"]) == ["provision", "train, failed", "train", "idle"]
    assert found["clock_set_back"] == []


def test_show_before_anything_was_done(call: Call, tmp_path: Path) -> None:
    (tmp_path / "koinize.yaml").touch()
    assert call("show") == (0, "nothing was recorded yet\n", "")
    assert json.loads(call("show", "--json")[1])["runs"] == []
    assert not (tmp_path / ".koinize").exists()


def test_verify_says_how_many_records_and_where_they_end(call: Call, ledger: Ledger) -> None:
    last = json.loads(ledger.path.read_text().splitlines()[-1])["digest"]
    assert call("verify") == (
        0,
        "8 records, each follows from the one before it\n"
        f"head {last}\n"
        "releases, artifacts and earlier heads agree with it; whoever can write all of these files "
        "can write another story in all of them: note the head elsewhere, and give it as --head "
        "later, sign it (`koinize ledger sign`) or have it stamped (`koinize ledger stamp`)\n",
        "",
    )
    found = json.loads(call("verify", "--json")[1])
    assert found == {"records": 8, "head": last, "contradictions": [], "clock_set_back": []}
    assert call("verify", "--head", last)[0] == 0


def test_verify_finds_a_cut_end_an_empty_file_and_a_chain_written_anew(
    call: Call, ledger: Ledger, tmp_path: Path
) -> None:
    whole = ledger.path.read_text()
    last = json.loads(whole.splitlines()[-1])["digest"]
    said = (
        f"heads.jsonl knows of 8 records in the ledger, the last of which begins with {last[:12]}; "
        "it is not there: lines were cut off or written anew since"
    )
    for content in ("".join(whole.splitlines(keepends=True)[:-1]), ""):
        ledger.path.write_text(content)
        code, out, _ = call("verify")
        assert (code, out.splitlines()[-1]) == (1, said)

    ledger.path.unlink()
    anew = Ledger(ledger.path)
    for line in whole.splitlines():  # every second of the failed training was free, it says
        record = {**json.loads(line), "seconds": "0.000"}
        kept = ("utc", "previous", "digest")
        anew._chain.append({key: value for key, value in record.items() if key not in kept})
    assert anew.verify().records == 8
    assert call("verify")[1].splitlines()[-1] == said

    (tmp_path / ".koinize" / "heads.jsonl").unlink()
    assert call("verify")[0] == 0  # nobody can know it from these files
    code, out, _ = call("verify", "--head", last)
    assert (code, out.splitlines()[-1]) == (
        1,
        f"no record of the ledger has the digest {last}, which --head asks for",
    )


def test_verify_compares_seconds_with_what_the_artifacts_say(
    call: Call, ledger: Ledger, tmp_path: Path
) -> None:
    store = Store(tmp_path / ".koinize")
    for number, seconds in enumerate((3.0, 4.0, 5.0)):
        with store.building(f"{number}" * 64, f"train/mood/l{number}", {}) as draft:
            draft.facts["seconds"] = seconds
    made = {"run": "r2", "kind": "train", "device": "2 cores", "price": {}, "share": "1"}
    for number, seconds in ((0, "3.2"), (1, "2.5")):
        ledger.start(f"r2-{number}", step="train", artifact=f"{number}" * 64, **made)
        ledger.end(f"r2-{number}", status="done", seconds=Decimal(seconds))
    code, out, _ = call("verify")
    assert (code, out.splitlines()[2:]) == (
        1,
        [
            "train/mood/l1 was made in 4.000 s, and the ledger has 2.500 s for it",
            "train/mood/l2 was made in 5.000 s, and the ledger has no line of it",
        ],
    )


def test_verify_finds_the_changed_line(call: Call, ledger: Ledger) -> None:
    ledger.path.write_text(ledger.path.read_text().replace("no, room", "no room"))
    assert call("verify") == (
        1,
        "",
        "koinize: .koinize/ledger.jsonl:4 the ledger was changed: this line does not follow from "
        "the one before it; restore the file from a copy; koinize never edits a line\n",
    )


def test_a_clock_that_went_back_is_told(
    call: Call, tmp_path: Path, clock: Callable[[str], None]
) -> None:
    (tmp_path / "koinize.yaml").touch()
    ledger = Ledger(tmp_path / ".koinize" / "ledger.jsonl")
    clock("2026-03-01T10:00:00+00:00")
    with ledger.recording("gate/mood", kind="gate", device="d", price={}):
        clock("2026-03-01T09:00:00+00:00")
    said = (
        "line 2: the clock went back by 3600.000 s; durations come from another clock, dates from "
        "this one\n"
    )
    assert said in call("verify")[1]
    assert call("show")[1].endswith(said)
    found = json.loads(call("verify", "--json")[1])
    assert found["clock_set_back"] == [{"line": 2, "seconds": "3600.000"}]


def test_export_writes_a_row_per_interval(call: Call, ledger: Ledger, tmp_path: Path) -> None:
    code, out, _ = call("export")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 4
    failed, done = rows[1:3]
    assert (failed["status"], failed["error"], failed["joules"]) == ("failed", "no, room", "")
    started = ledger.intervals()[2].started.isoformat(timespec="milliseconds")
    assert done == {
        "interval": "r1-train/mood/de-5",
        "run": "r1",
        "step": "train/mood/de",
        "kind": "train",
        "status": "done",
        "artifact": "id of train/mood/de",
        "device": "2 cores",
        "started_utc": started,
        "seconds": "3",
        "share": "0.5",
        "machine_seconds": "1.5",
        "tokens": "7",
        "units": "9",
        "price_per_hour": "3.6",
        "currency": "EUR",
        "price_source": "a bill",
        "price_date": "2026-01-31",
        "cost": "0.0015",
        "joules": "7200.000",
        "energy_source": "a meter",
        "group": "",
        "why": "",
        "error": "",
        "lost_seconds": "",
    }
    assert call("export", "--csv", "out.csv") == (0, "wrote 4 intervals to out.csv\n", "")
    assert (tmp_path / "out.csv").read_text() == out


def test_prices_lists_the_book(call: Call) -> None:
    """Needs no project."""
    code, out, _ = call("prices")
    assert code == 0
    assert all(name in out for name in price_book())
    assert "paper-2601-16127: derived, not listed; " in out
    assert json.loads(call("prices", "--json")[1])[0] == {
        "name": "aws-m7g-large",
        "machine": "2 vCPU (Graviton3), 8 GB",
        "per_hour": "0.0816",
        "currency": "USD",
        "source": price_book()["aws-m7g-large"].source,
        "date": "2026-06-17",
    }


def test_no_project_here(call: Call) -> None:
    assert call("show") == (
        2,
        "",
        "koinize: koinize.yaml there is no such file; go to a project's folder, or name it "
        "as an argument\n",
    )
