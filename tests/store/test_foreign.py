"""Files that are not ours: nothing is written, removed or trusted through a link."""

import errno
import os
import stat

import pytest

from koinize.errors import BrokenError, InputError, KoinizeError
from koinize.ledger import Heartbeat, Ledger
from koinize.pipeline.run import locked
from koinize.store import Home, Store, durable, write_atomically
from koinize.store.durable import make_folder, temporary_folder, write_briefly
from koinize.store.typed import typed

LINK = "is a link, and koinize writes and removes nothing through links"
WORK = "years of work"


@pytest.fixture
def victim(tmp_path):
    """A folder of somebody else's."""
    folder = tmp_path / "victim"
    (folder / "sub").mkdir(parents=True)
    (folder / "thesis.txt").write_text(WORK)
    return folder


def untouched(victim):
    names = sorted(path.name for path in victim.rglob("*"))
    return names == ["sub", "thesis.txt"] and (victim / "thesis.txt").read_text() == WORK


FOLDERS = ("tmp", "artifacts", "releases", "lost", "logs", "progress", "digests", "interference")
FILES = ("ledger.jsonl", "lock", "holder.json", "heartbeat", "names.json", "ledger.jsonl.lock")


@pytest.mark.parametrize("name", ["", *FOLDERS, *FILES, "releases/mood", "no such thing"])
def test_the_lock_is_not_taken_over_links(tmp_path, victim, name):
    link = tmp_path / ".koinize" / name if name else tmp_path / ".koinize"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim / "thesis.txt" if name in FILES else victim)
    with pytest.raises(InputError) as caught, locked(tmp_path / ".koinize"):
        pass
    assert str(caught.value) == (
        f"{link} {LINK}; expected a file or folder of its own; remove the link"
    )
    assert untouched(victim)


def test_nothing_is_swept_or_made_behind_a_link(tmp_path, victim):
    home = tmp_path / ".koinize"
    home.mkdir()
    (home / "tmp").symlink_to(victim)
    store = Store(home)
    doings = (store.sweep, lambda: store.discard("0" * 64), lambda: begun(store))
    for doing in doings:
        with pytest.raises(InputError, match=LINK):
            doing()
    assert untouched(victim)


def begun(store):
    with store.building("0" * 64, "a", {}):
        pass


def test_no_interval_is_written_into_another_file(tmp_path, victim):
    (tmp_path / "ledger.jsonl").symlink_to(victim / "thesis.txt")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with (
        pytest.raises(InputError, match=LINK),
        ledger.recording("a", kind="k", device="", price={}),
    ):
        pass
    assert untouched(victim)


def test_what_is_brief_takes_the_place_of_a_link(tmp_path, victim):
    for hard in (False, True):
        path = tmp_path / f"heartbeat{hard}"
        (path.hardlink_to if hard else path.symlink_to)(victim / "thesis.txt")
        Heartbeat(0.0, "run", 1).write(path)
        write_briefly(tmp_path / "other", "x")
        assert path.read_text() == "run 1"
        assert not path.is_symlink()
    assert untouched(victim)


def test_an_artifact_that_is_a_link(tmp_path, victim):
    folder = Home(tmp_path).artifacts
    folder.mkdir()
    (folder / ("0" * 64)).symlink_to(victim)
    with pytest.raises(BrokenError, match="it is a link to a folder elsewhere"):
        Store(tmp_path).open("0" * 64)
    Store(tmp_path).lose("0" * 64)
    assert untouched(victim)


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o027])
def test_everything_obeys_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        store = Store(tmp_path / ".koinize")
        with store.building("0" * 64, "a", {}) as draft:
            (draft.folder / "file").write_text("x")
        write_atomically(tmp_path / "report.html", "x")
    finally:
        os.umask(before)
    for path in (*(tmp_path / ".koinize").rglob("*"), tmp_path / "report.html"):
        full = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == full & ~mask, path


def test_every_new_folder_is_put_on_disk_in_its_parent(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "sync", synced.append)
    make_folder(tmp_path / "a" / "b" / "c")
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    synced.clear()
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced == []


def test_a_temporary_folder_is_not_made_behind_a_link(tmp_path, victim):
    (tmp_path / "tmp").symlink_to(victim)
    with pytest.raises(InputError, match=LINK), temporary_folder(tmp_path / "tmp"):
        pass
    assert untouched(victim)


@pytest.mark.parametrize(
    ("kind", "value", "what"),
    [
        (dict[str, int], {"a": "x"}, "its field 'a': Input should be a valid integer"),
        (dict[str, str], [], "it is no such record: Input should be a valid dictionary"),
    ],
)
def test_a_record_names_its_field(kind, value, what):
    with pytest.raises(KoinizeError) as caught:
        typed(kind, value, where="file")
    assert str(caught.value).startswith(f"file {what}")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically(tmp_path / "file", "x")
    assert caught.value.filename == str(tmp_path / "file")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        ledger.recording("a", kind="k", device="", price={}),
    ):
        pass
    assert caught.value.filename == str(tmp_path / "ledger.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".part")) == []


def test_pipes_among_what_is_swept(tmp_path):
    store = Store(tmp_path)
    store.home.temporary.mkdir()
    os.mkfifo(store.home.temporary / "pipe")
    os.mkfifo(tmp_path / ".file-x.part")
    write_atomically(tmp_path / "file", "x")
    store.sweep()
    assert list(store.home.temporary.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "tmp"]
