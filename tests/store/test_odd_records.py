"""Records with a valid digest that koinize did not write: each field is missed by its name."""

import json

import pytest

from koinize.digest import digest
from koinize.errors import BrokenError, KoinizeError
from koinize.ledger import Heartbeat, Ledger
from koinize.release.archive import Releases
from koinize.release.attempts import Attempts
from koinize.store import MANIFEST, Store, read_record, write_record

ID = "a" * 64


def changed(path, **keys):
    """The record with other values of some keys (None: without them), and its digest right."""
    record = read_record(path)
    kept = {key: value for key, value in {**record, **keys}.items() if value is not None}
    path.chmod(0o644)
    write_record(path, kept)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    with store.building(ID, "train/mood/de", {"code": "1"}) as draft:
        (draft.folder / "file").write_text("x")
        draft.facts.update(seconds=1.5, tokens=3)
    return Store(tmp_path)


ODD = [
    ({"inputs": None}, "its field 'inputs': Field required"),
    ({"name": 3}, "its field 'name': Input should be a valid string"),
    ({"files": []}, "its field 'files': Input should be a valid dictionary"),
    ({"files": {"a": {"bytes": 1}}}, "its field 'files.a.sha256': Field required"),
    ({"files": {"../a": {}}}, "its field 'files.../a.[key]': is no path inside the folder"),
    ({"facts": {"seconds": -1}}, "its field 'facts.seconds': Input should be greater than or"),
    ({"facts": {"seconds": 1e300}}, "its field 'facts.seconds': Input should be less than or"),
    ({"facts": {"adapter": "x"}}, "its field 'facts.adapter': String should match pattern"),
]


@pytest.mark.parametrize(("keys", "what"), ODD)
def test_an_odd_manifest(store, keys, what):
    changed(store.home.artifacts / ID / MANIFEST, **keys)
    with pytest.raises(BrokenError) as caught:
        store.open(ID)
    said = f"artifact aaaaaaaaaaaa is broken: in its manifest.json, {what}"
    assert caught.value.what.startswith(said)
    assert store.names() == {}


def test_a_manifest_of_another_format(store):
    changed(store.home.artifacts / ID / MANIFEST, format=None)
    with pytest.raises(BrokenError, match="its format is None, not 1"):
        store.open(ID)


def test_a_fact_that_was_not_recorded(store):
    facts = store.open(ID).facts
    assert facts["tokens"] == 3
    assert facts.get("chosen") is None
    with pytest.raises(BrokenError, match=r"its manifest.json lacks the field 'facts.chosen'"):
        facts["chosen"]


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', '{"a": null}', "[" * 100_000, "9" * 10_000])
def test_odd_names(store, text):
    store.home.names.write_text(text)
    assert store.written_names() is None
    assert store.names() == {"train/mood/de": ID}


def rewritten(path, change):
    """The ledger with its records changed, every digest right."""
    previous, lines = "0" * 64, []
    for number, line in enumerate(path.read_text().splitlines()):
        record = {**json.loads(line), "previous": previous}
        del record["digest"]
        change(number, record)
        record["digest"] = previous = digest(record)
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines))


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with ledger.recording("gate/mood", kind="gate", device="cpu", price={"per_hour": "1"}):
        pass
    return ledger


def keys_of(ledger):
    return [list(json.loads(line)) for line in ledger.path.read_text().splitlines()]


def test_every_field_of_the_ledger_is_missed(ledger):
    whole = ledger.path.read_text()
    optional = {"at", "why", "tokens", "units", "energy", "error", "sort", "address"}
    optional |= {"previous", "digest"}
    for number, keys in enumerate(keys_of(ledger)):
        for key in set(keys) - optional:
            rewritten(ledger.path, lambda n, record: n == number and record.pop(key))  # noqa: B023
            with pytest.raises(KoinizeError) as caught:
                ledger.intervals()
            assert str(caught.value).startswith(f"{ledger.path}:{number + 1} the ledger has an odd")
            assert f"'{key}'" in str(caught.value) or key == "event"
            ledger.path.write_text(whole)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        (0, "share", "NaN"),
        (0, "share", "1e999999"),
        (0, "at", "x"),
        (0, "utc", "yesterday"),
        (0, "utc", "2026-01-01T00:00:00"),
        (0, "address", {"task": "mood"}),
        (0, "address", {"kind": "train", "other": "x"}),
        (0, "price", {"per_hour": "Infinity"}),
        (1, "seconds", "-1"),
        (1, "seconds", 3),
        (1, "energy", {"joules": "many"}),
        (1, "tokens", -1),
        (1, "event", "stop"),
    ],
)
def test_odd_values_in_the_ledger(ledger, line, key, value):
    rewritten(ledger.path, lambda number, record: number == line and record.update({key: value}))
    with pytest.raises(KoinizeError, match="the ledger has an odd line: its field"):
        ledger.intervals()
    ledger.setbacks()


@pytest.mark.parametrize("text", ["r NaN", "r 1e99", "r -1", "r Infinity", "r", "\xff", "a b c"])
def test_odd_heartbeats(tmp_path, text):
    path = tmp_path / "heartbeat"
    path.write_text(text, encoding="latin-1")
    found = Heartbeat.read(path)
    assert found is None or found.at is None


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"stack": [1]}, "its field 'events': Field required"),
        ({"stack": ["x"], "events": []}, "its field 'stack.0': Input should be a valid integer"),
        ({"stack": [0], "events": []}, "its field 'stack.0': Input should be greater than or"),
        ({"stack": [1], "events": [{"utc": "x"}]}, "its field 'events.0.action': Field required"),
    ],
)
def test_an_odd_pointer(tmp_path, record, what):
    releases = Releases(tmp_path, "mood")
    releases.folder.mkdir(parents=True)
    write_record(releases.folder / "production.json", {"format": 1, **record})
    with pytest.raises(KoinizeError) as caught:
        releases.channel("production")
    assert str(caught.value).startswith(f"{releases.folder}/production.json {what}")


def test_odd_attempts(tmp_path):
    found = Attempts(tmp_path, "mood")
    path = found.former
    path.parent.mkdir(parents=True)
    write_record(path, {"format": 1, "attempts": [{"utc": "x", "level": 2}]})
    with pytest.raises(KoinizeError, match=r"its field 'attempts.0.channel': Field required"):
        found.all()
    write_record(path, {"format": 1})
    with pytest.raises(KoinizeError, match="its field 'attempts': Field required"):
        found.all()
    write_record(path, {"attempts": []})
    with pytest.raises(KoinizeError, match="not whole: it cannot be read or has changed"):
        found.all()


def test_a_release_with_a_path_that_leads_elsewhere(tmp_path):
    folder = Releases(tmp_path, "mood").folder / "v1"
    folder.mkdir(parents=True)
    write_record(folder / "release.json", {"format": 1, "version": 1, "files": {"/etc/x": ID}})
    with pytest.raises(KoinizeError, match=r"release v1 is broken: in its release.json, its field"):
        Releases(tmp_path, "mood").open(1)
