"""What broke is found, named in one message, and just that is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from koinize.errors import InputError
from koinize.ledger import Interval, Ledger
from koinize.pipeline.run import locked
from koinize.release import doctor
from koinize.release.doctor import examine, mend
from koinize.store import Store
from tests.release.releasing import artifact_folder
from tests.reliability.arena import Arena
from tests.reliability.conditions import check_finished, digests, leftovers

pytestmark = pytest.mark.slow

ADAPTER, ROWS, MANIFEST = "adapter_model.safetensors", "rows.jsonl", "manifest.json"
MERGE, TEST = "merge/mood/ties density 1", "evaluate/mood/BASE/de/test"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def broken(root: Path) -> dict[str, str]:
    return {one.what: one.detail for one in examine(root) if one.state == "broken"}


def runs(root: Path) -> list[str]:
    """The steps of which the ledger has a finished interval, in order."""
    kinds = {"base", "train", "merge", "evaluate", "select"}
    intervals = Ledger(root / ".koinize" / "ledger.jsonl").intervals()
    return [one.step for one in intervals if one.status == "done" and one.kind in kinds]


@pytest.mark.parametrize(
    ("name", "file", "harm", "what"),
    [
        ("train/mood/de", ADAPTER, flip, f"its file {ADAPTER} is missing or has changed"),
        (MERGE, ADAPTER, Path.unlink, f"its file {ADAPTER} is missing or has changed"),
        (TEST, ROWS, flip, f"its file {ROWS} is missing or has changed"),
        (TEST, MANIFEST, empty, f"its {MANIFEST} cannot be read"),
        ("select/mood", MANIFEST, flip, f"its {MANIFEST} has changed"),
        ("select/mood/mean", MANIFEST, Path.unlink, f"its {MANIFEST} is missing"),
    ],
    ids=["adapter", "merge", "rows", "manifest emptied", "manifest changed", "manifest lost"],
)
def test_the_doctor_mends_one_artifact_and_the_run_makes_only_that(
    fake: Arena,
    finished: Path,
    name: str,
    file: str,
    harm: Callable[[Path], None],
    what: str,
) -> None:
    expected, before = digests(finished), runs(finished)
    folder = artifact_folder(finished, name)
    harm(folder / file)
    said = f"artifact {folder.name[:12]} is broken: {what}"
    advice = "run `koinize doctor --mend`, then `koinize run`: just that is built again"
    shown = f".koinize/artifacts/{folder.name} {said}; {advice}"
    assert broken(finished) == {folder.name[:12]: f"{finished}/{shown}"}
    report = fake.koinize("report", cwd=finished)
    assert (report.code, report.output) == (1, f"koinize: {shown}\n")
    assert mend(finished) == [f"removed {said}; `koinize run` makes it again if anything needs it"]
    assert broken(finished) == {}
    assert fake.koinize("run", cwd=finished).code == 0
    assert runs(finished) == [*before, name]
    assert digests(finished) == expected


def test_a_run_with_something_to_do_mends_by_itself_and_says_so(
    fake: Arena, finished: Path
) -> None:
    """It reads every artifact of today's steps sooner or later; first it sees whether it can."""
    expected, before = digests(finished), runs(finished)
    store = Store(finished / ".koinize")
    store.discard(store.names()[TEST])
    adapter, rows = (
        artifact_folder(finished, "train/mood/de"),
        artifact_folder(finished, "select/mood"),
    )
    flip(adapter / ADAPTER)
    empty(rows / MANIFEST)
    said = {
        "train/mood/de": f"artifact {adapter.name[:12]} is broken: its file {ADAPTER} is missing "
        "or has changed",
        "select/mood": f"artifact {rows.name[:12]} is broken: its {MANIFEST} cannot be read",
    }
    ended = fake.koinize("run", cwd=finished)
    assert ended.code == 0, ended.output
    for one in said.values():
        assert f"{one}; it is removed, and made again where it is needed" in ended.output
    assert sorted(runs(finished)[len(before) :]) == sorted([*said, TEST])
    whys = {one.step: one.why for one in Ledger(finished / ".koinize/ledger.jsonl").intervals()}
    assert {name: whys[name] for name in said} == said
    assert whys[TEST] == "its artifact is gone"
    assert digests(finished) == expected


@pytest.mark.parametrize("name", ["inputs.json", "experience.json"])
@pytest.mark.parametrize("harm", [flip, empty, Path.unlink])
def test_what_is_only_remembered_is_made_again(
    fake: Arena, finished: Path, name: str, harm: Callable[[Path], None]
) -> None:
    home = finished / ".koinize"
    fake.koinize("plan", cwd=finished)
    expected = (home / name).read_bytes()
    harm(home / name)
    if (home / name).exists():
        noted = {one.what: one.detail for one in examine(finished) if one.state == "note"}
        assert noted == {name: "cannot be read; it is made again"}
    ended = fake.koinize("run", cwd=finished)
    assert (ended.code, ended.output) == (0, "nothing to do; the report is report.html\n")
    assert (home / name).read_bytes() == expected


@pytest.mark.parametrize("harm", [empty, Path.unlink])
def test_lost_names_are_told_by_the_artifacts(
    fake: Arena, finished: Path, harm: Callable[[Path], None]
) -> None:
    names = Store(finished / ".koinize").names()
    harm(finished / ".koinize" / "names.json")
    assert list(broken(finished)) == ["names.json"]
    assert mend(finished) == ["wrote names.json again, with the newest artifact of each name"]
    assert Store(finished / ".koinize").written_names() == names
    harm(finished / ".koinize" / "names.json")
    assert fake.koinize("run", cwd=finished).code == 0
    assert Store(finished / ".koinize").written_names() == names


def test_a_torn_last_line_of_the_ledger_is_dropped(fake: Arena, finished: Path) -> None:
    ledger = finished / ".koinize" / "ledger.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole + b'{"event": "sta')
    notes = [one.detail for one in examine(finished) if one.state == "note"]
    assert notes == ["its last line was never finished; the next run drops it"]
    store = Store(finished / ".koinize")
    store.discard(store.names()[TEST])
    assert fake.koinize("run", cwd=finished).code == 0
    assert ledger.read_bytes().startswith(whole + b'{"event": "start"')
    Ledger(ledger).verify()


def test_a_changed_line_of_the_ledger_stops_a_run_until_it_is_mended(
    fake: Arena, finished: Path
) -> None:
    ledger = finished / ".koinize" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    changed = lines[6].replace(b'"interval": "', b'"interval": "x')
    assert changed != lines[6]
    ledger.write_bytes(b"".join([*lines[:6], changed, *lines[7:]]))
    store = Store(finished / ".koinize")
    store.discard(store.names()[TEST])
    said = fake.koinize("run", cwd=finished)
    assert said.code == 1
    assert said.output == (
        "koinize: .koinize/ledger.jsonl:7 the ledger was changed: this line does not follow from "
        "the one before it; restore the file from a copy; koinize never edits a line\n"
    )
    [did] = mend(finished)
    [aside] = (finished / ".koinize").glob("ledger-*.broken.jsonl")
    assert did == (
        f"{ledger}:7 was changed: the 6 lines before it are kept, the whole file is {aside.name}; "
        f"what its other {len(lines) - 6} lines recorded is in no sum now"
    )
    assert ledger.read_bytes() == b"".join(lines[:6])
    assert aside.read_bytes() == b"".join([*lines[:6], changed, *lines[7:]])
    assert broken(finished) == {}
    assert fake.koinize("run", cwd=finished).code == 0


@pytest.mark.parametrize("content", [b"", b"\xff", b"half", b"a b c", b"run not-a-number"])
def test_a_heartbeat_that_cannot_be_read_is_none(
    fake: Arena, finished: Path, content: bytes
) -> None:
    home = finished / ".koinize"
    (home / "heartbeat").write_bytes(content)
    ledger = Ledger(home / "ledger.jsonl")
    what = {"run": "killed", "kind": "train", "device": "d", "share": "1", "price": {}}
    ledger.start("left-open", step="train/mood/de", artifact="0" * 64, **what)
    assert fake.koinize("run", cwd=finished).code == 0
    [closed] = [one for one in Ledger(ledger.path).intervals() if one.id == "left-open"]
    assert closed.status == "interrupted"


def test_what_a_killed_run_kept_is_done_by_its_own_measures(fake: Arena, finished: Path) -> None:
    """It was killed between keeping the artifact and saying so in the ledger."""
    home = finished / ".koinize"
    ledger = Ledger(home / "ledger.jsonl")
    artifact = Store(home).names()[TEST]
    facts = Store(home).open(artifact).facts
    what = {"run": "killed", "kind": "evaluate", "device": "d", "share": "1", "price": {}}
    ledger.start("left-open", step=TEST, artifact=artifact, **what)
    assert fake.koinize("run", cwd=finished).code == 0
    [closed] = [one for one in Ledger(ledger.path).intervals() if one.id == "left-open"]
    assert (closed.status, closed.error) == ("done", "")
    assert (float(closed.seconds), closed.units) == (facts["seconds"], facts["units"])


def test_mending_waits_for_nobody(finished: Path) -> None:
    with locked(finished / ".koinize"), pytest.raises(InputError, match="another koinize works"):
        mend(finished)


def test_a_healthy_project_needs_no_mending(finished: Path, tmp_path: Path) -> None:
    check_finished(finished)
    assert mend(finished) == []
    (tmp_path / "nothing").mkdir()
    assert mend(tmp_path / "nothing") == []


def test_what_was_half_built_goes(finished: Path) -> None:
    (finished / ".koinize" / "tmp" / "left").mkdir(parents=True)
    notes = [one.detail for one in examine(finished) if one.state == "note"]
    assert notes == ["1 half-built artifacts of killed processes; the next run removes them"]
    assert mend(finished) == ["removed 1 half-built artifacts of processes that were killed"]
    assert leftovers(finished) == []


def test_what_the_doctor_did_is_told_to_people_and_kept_from_machines(
    fake: Arena, finished: Path
) -> None:
    folder = artifact_folder(finished, MERGE)
    flip(folder / ADAPTER)
    ended = fake.koinize("doctor", "--mend", "--json", cwd=finished)
    assert ended.code == 0, ended.output
    told, _, printed = ended.output.partition("[\n")
    assert told.startswith(f"removed artifact {folder.name[:12]} is broken: its file {ADAPTER}")
    assert {one["state"] for one in json.loads(f"[{printed}")} == {"good"}


@pytest.mark.parametrize(
    ("hours", "found"), [((-2, -1), []), ((1, -1), ["note"]), ((-1, 1), ["broken"])]
)
def test_a_clock_that_was_ahead_once_is_no_fault_for_ever(hours, found):
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    plain = {"artifact": "", "seconds": Decimal(1), "share": Decimal(1), "device": "", "error": ""}
    intervals = [
        Interval(
            id=str(hour),
            run="r",
            step="s",
            kind="k",
            started=now + timedelta(hours=hour),
            status="done",
            tokens=0,
            units=0,
            price={},
            **plain,
        )
        for hour in hours
    ]
    assert [check.state for check in doctor._clock(intervals, now)] == found
