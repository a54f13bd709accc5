"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from koinize.errors import InputError
from koinize.store import NewFolder, put_in_place


def test_all_that_is_in_a_folder_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Synced: files and folders below, itself; then, renamed, the folder that it is now in."""
    folder, target = tmp_path / "draft", tmp_path / "kept" / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("text")
    target.parent.mkdir()
    synced = []

    def note(handle: int) -> None:
        synced.append((Path(f"/proc/self/fd/{handle}").readlink(), target.exists()))

    monkeypatch.setattr(os, "fsync", note)
    put_in_place(folder, target)
    assert synced == [
        (folder / "deep", False),
        (folder / "deep" / "file", False),
        (folder, False),
        (target.parent, True),
    ]
    assert (target / "deep" / "file").read_text() == "text"


def test_a_new_folder_is_seen_once_it_is_committed(tmp_path):
    out = tmp_path / "made" / "for" / "it"
    with closing(NewFolder(out)) as draft:
        (draft.folder / "file").write_text("text")
        assert not out.exists()
        draft.commit()
    assert (out / "file").read_text() == "text"
    assert list(out.parent.iterdir()) == [out]


def test_a_new_folder_that_is_not_committed_goes_with_its_parents(tmp_path):
    with closing(NewFolder(tmp_path / "made" / "for" / "it")) as draft:
        (draft.folder / "file").write_text("text")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError) as caught:
        NewFolder(tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'} exists already; remove it or choose another name"
    )
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


KILLED = """
import os, signal, sys
from koinize.store import NewFolder
draft = NewFolder(sys.argv[1])
(draft.folder / "file").write_text("half")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_with_the_next_and_what_lives_stays(tmp_path):
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert ended.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    with closing(NewFolder(out)) as living, closing(NewFolder(out)) as draft:
        assert not left.exists()
        assert living.folder.exists()
        draft.commit()
    assert list(tmp_path.iterdir()) == [out]
