"""Artifacts are there whole or not at all, and no changed byte goes unnoticed."""

from __future__ import annotations

import ast
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import koinize
from koinize.digest import digest
from koinize.errors import KoinizeError
from koinize.store import Store, temporary_folder, write_atomically

ID = digest("an artifact")
PARTS = st.text("abcXYZ019._-", min_size=1, max_size=5).filter(lambda part: part.strip("."))
FILES = st.dictionaries(
    st.builds("/".join, st.lists(PARTS, min_size=1, max_size=2)),
    st.binary(max_size=20),
    min_size=1,
    max_size=3,
).filter(
    # A name may not be another's folder.
    lambda files: not any(other.startswith(f"{one}/") for one in files for other in files)
)
FACTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
        ),
        max_leaves=4,
    ),
    max_size=3,
)


BUILT = {"adapter/weights": b"\x01\x02", "report": b"text"}


def build(root: Path, files=BUILT, facts={"tokens": 7}) -> None:  # noqa: B006 - never changed
    with Store(root).building(ID, "train/de", {"rows de": "0a"}) as draft:
        for name, content in files.items():
            (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.folder / name).write_bytes(content)
        draft.facts.update(facts)


def message(root: Path) -> str:
    with pytest.raises(KoinizeError) as caught:
        Store(root).open(ID)
    return str(caught.value)


def broken(root: Path, how: str, artifact: str = ID) -> str:
    return (
        f"{root}/artifacts/{artifact} artifact {artifact[:12]} is broken: {how}; "
        "run `koinize doctor --mend`, then `koinize run`: just that is built again"
    )


@given(FILES, FACTS)
@settings(max_examples=25)
def test_what_was_committed_comes_back(files, facts):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root, files, facts)
        artifact = Store(root).open(ID)
        assert {name: artifact.path(name).read_bytes() for name in artifact.files} == files
        assert artifact.facts == facts
        assert (artifact.id, artifact.name) == (ID, "train/de")
        assert artifact.inputs == {"rows de": "0a"}
        assert Store(root).ids() == {ID}
        assert not list((root / "tmp").iterdir())


def test_only_what_was_verified_leads_to_its_files(tmp_path):
    build(tmp_path)
    store = Store(tmp_path)
    recorded, opened = store.manifest(ID), store.open(ID)
    assert {**vars(recorded), "folder": tmp_path / "artifacts" / ID} == vars(opened)
    assert not hasattr(recorded, "folder")
    assert not hasattr(recorded, "path")


SOURCE = Path(koinize.__file__).parent
KNOW_THE_FOLDERS = {"store/home.py", "store/folder.py", "store/bucket.py"}


def goes_to_artifacts(source: str) -> bool:
    """Whether a module joins this folder to a path, or has it inside a text."""
    return re.search(r'/ "artifacts"|artifacts/|(home|files|\))\.artifacts', source) is not None


def test_everybody_else_has_the_files_of_artifacts_from_the_store():
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if goes_to_artifacts(path.read_text(encoding="utf-8"))
    }
    assert found == KNOW_THE_FOLDERS, "read through Store.open, which checks every byte"


ONLY_HERE = {"pipeline/account.py", "release/audit.py", "release/doctor.py"}
"""Checkpoints; what one ledger tells of; what there is to look at while koinize.yaml is broken."""


def is_of_this_machine_alone(node: ast.AST) -> bool:
    """Whether somebody opens a store without saying what koinize.yaml says of it."""
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return called and node.func.id == "Store" and len(node.args) < 2


@pytest.mark.slow
def test_everybody_else_opens_the_store_that_koinize_yaml_names():
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if any(map(is_of_this_machine_alone, ast.walk(ast.parse(path.read_text("utf-8")))))
    }
    assert found == ONLY_HERE, "Store(home, spec.store)"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('home / "artifacts" / id', True),
        ("project.files.artifacts / id", True),
        ("Home(folder).artifacts / id", True),
        ("candidate.artifacts", False),
        ('home.glob("artifacts/*/rows.jsonl")', True),
        ('f"{home}/artifacts/{id}"', True),
        ('record["artifacts"]', False),
        ('"3 artifacts"', False),
    ],
)
def test_a_way_around_the_store_is_found(source, expected):
    assert goes_to_artifacts(source) is expected


def test_an_empty_store(tmp_path):
    store = Store(tmp_path)
    assert store.ids() == set()
    assert store.names() == {}
    assert store.manifest(ID) is None
    assert message(tmp_path) == (
        f"{tmp_path}/artifacts artifact {ID[:12]} is not in the store; run again: it will be built"
    )
    store.sweep()
    store.discard(ID)


def test_a_folder_under_another_id_is_not_that_artifact(tmp_path):
    build(tmp_path)
    other = digest("another artifact")
    (tmp_path / "artifacts" / ID).rename(tmp_path / "artifacts" / other)
    with pytest.raises(KoinizeError) as caught:
        Store(tmp_path).open(other)
    assert str(caught.value) == broken(
        tmp_path, f"its manifest.json is that of {ID[:12]}", artifact=other
    )


@pytest.mark.parametrize("how", ["lost", "a file for a folder"])
def test_a_folder_without_a_manifest_is_broken_and_not_absent(tmp_path, how):
    build(tmp_path)
    folder = tmp_path / "artifacts" / ID
    (folder / "manifest.json").unlink()
    if how != "lost":
        shutil.rmtree(folder)
        folder.write_text("no folder")
    assert message(tmp_path) == broken(tmp_path, "its manifest.json is missing")
    Store(tmp_path).discard(ID)
    assert Store(tmp_path).ids() == set()
    build(tmp_path)
    assert Store(tmp_path).open(ID).facts == {"tokens": 7}


def test_what_is_no_artifact_is_not_listed(tmp_path):
    build(tmp_path)
    (tmp_path / "artifacts" / ".DS_Store").write_text("")
    (tmp_path / "artifacts" / "notes").mkdir()
    assert Store(tmp_path).ids() == {ID}


@pytest.mark.parametrize("name", ["adapter/weights", "report"])
def test_a_changed_or_missing_file_is_found(tmp_path, name):
    build(tmp_path)
    path = tmp_path / "artifacts" / ID / name
    content = path.read_bytes()
    expected = broken(tmp_path, f"its file {name} is missing or has changed")
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 0x10]) + content[index + 1 :])
        assert message(tmp_path) == expected
    path.write_bytes(content[:-1])
    assert message(tmp_path) == expected
    path.unlink()
    assert message(tmp_path) == expected


def test_every_changed_byte_of_a_manifest_is_found(tmp_path):
    build(tmp_path)
    path = tmp_path / "artifacts" / ID / "manifest.json"
    content = path.read_bytes()
    expected = {
        broken(tmp_path, "its manifest.json has changed"),
        broken(tmp_path, "its manifest.json cannot be read"),
    }
    found = set()
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 0x01]) + content[index + 1 :])
        found.add(message(tmp_path))
    assert found == expected


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"digest": 3}'])
def test_json_that_is_no_manifest(tmp_path, content):
    build(tmp_path)
    (tmp_path / "artifacts" / ID / "manifest.json").write_text(content)
    assert message(tmp_path) == broken(tmp_path, "its manifest.json has changed")


def test_a_manifest_of_another_format(tmp_path):
    build(tmp_path)
    path = tmp_path / "artifacts" / ID / "manifest.json"
    record = {**json.loads(path.read_text()), "format": 2}
    del record["digest"]
    path.write_text(json.dumps({**record, "digest": digest(record)}))
    assert message(tmp_path) == broken(tmp_path, "its format is 2, not 1")


def test_an_exception_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with Store(tmp_path).building(ID, "x", {}) as draft:
            (draft.folder / "half").write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert Store(tmp_path).ids() == set()
    assert not list((tmp_path / "tmp").iterdir())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    """Whichever of the syncs of a commit fails; then, with room again, the commit succeeds."""
    real = os.fsync
    # The manifest and its folder; two files, their folder, the manifest and the draft's folder.
    for fails_at in range(7):
        room = iter(range(fails_at))

        def full(handle: int, room: Iterator[int] = room) -> None:
            if next(room, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left on device"):
                build(tmp_path)
        assert Store(tmp_path).ids() == set()
        assert not list((tmp_path / "tmp").iterdir())
    build(tmp_path)
    assert Store(tmp_path).open(ID).facts == {"tokens": 7}


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_point_leaves_everything_or_nothing(tmp_path, stride):
    """A child is killed at its n-th system call that Python audits, for every n, or some."""
    outcomes = []
    for fatal in range(1, 500, stride):
        root = tmp_path / str(fatal)
        child = os.fork()
        if child == 0:
            _die_at(fatal)
            build(root)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        store = Store(root)
        assert store.ids() in (set(), {ID})
        if store.ids():
            assert store.open(ID).facts == {"tokens": 7}
        outcomes.append(bool(store.ids()))
        store.sweep()
        assert not (root / "tmp").exists() or not list((root / "tmp").iterdir())
        build(root)
        assert store.open(ID).path("report").read_bytes() == b"text"
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert outcomes == sorted(outcomes), "once committed, it stays"
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert len(outcomes) > 20 // stride


def _die_at(fatal: int) -> None:
    count = 0

    def hook(_event: str, _arguments: tuple[object, ...]) -> None:
        nonlocal count
        count += 1
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_of_two_builders_of_one_id_the_first_is_kept(tmp_path):
    with Store(tmp_path).building(ID, "slow", {}) as slow:
        (slow.folder / "who").write_text("slow")
        with Store(tmp_path).building(ID, "quick", {}) as quick:
            (quick.folder / "who").write_text("quick")
    artifact = Store(tmp_path).open(ID)
    assert artifact.name == "quick"
    assert artifact.path("who").read_text() == "quick"
    assert not list((tmp_path / "tmp").iterdir())


def test_two_processes_that_commit_the_same_ids(tmp_path):
    """Both build the same twenty; the start is a pipe that closes for both at once."""
    reader, writer = os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            code = 1
            try:
                for number in range(20):
                    with Store(tmp_path).building(digest(number), str(number), {}) as draft:
                        (draft.folder / "file").write_text(str(number))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(reader)
    os.close(writer)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    store = Store(tmp_path)
    assert store.ids() == {digest(number) for number in range(20)}
    for number in range(20):
        assert store.open(digest(number)).path("file").read_text() == str(number)


HOLD = """
import sys
from pathlib import Path
from koinize.store import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_sweeping_spares_the_living(tmp_path):
    """Of two processes that build, one is killed; what lies there otherwise is swept, too."""
    living, dead = (
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "tmp")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    folders = [Path(process.stdout.readline().strip()) for process in (living, dead)]
    dead.kill()
    dead.communicate()
    (tmp_path / "tmp" / "1-of-an-older-koinize").mkdir()
    (tmp_path / "tmp" / "file").write_text("left")
    with temporary_folder(tmp_path / "tmp") as mine:
        Store(tmp_path).sweep()
        assert set((tmp_path / "tmp").iterdir()) == {folders[0], mine}
        assert (folders[0] / "file").read_text() == "half"
    living.communicate()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_sweeping_takes_what_a_killed_write_left_of_a_file(tmp_path):
    """Also of one that is never written again, such as the heartbeat of a run that was the last."""
    (tmp_path / ".heartbeat-1f.part").touch()
    with (tmp_path / ".names.json-2e.part").open("w") as written_now:
        fcntl.flock(written_now, fcntl.LOCK_EX)
        Store(tmp_path).sweep()
    assert [one.name for one in tmp_path.iterdir()] == [".names.json-2e.part"]


def test_sweeping_takes_it_from_every_folder_of_its_own_and_through_no_link(tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (elsewhere, home / "logs", home / "digests", home / "cache" / "rows"):
        folder.mkdir(parents=True)
        (folder / ".a.json-1f.part").touch()
    (home / "interference").symlink_to(elsewhere)
    Store(home).sweep()
    assert list(tmp_path.rglob("*.part")) == [elsewhere / ".a.json-1f.part"]


def test_a_discarded_artifact_is_gone_and_can_be_built_again(tmp_path):
    build(tmp_path)
    store = Store(tmp_path)
    store.open(ID)
    store.discard(ID)
    assert store.ids() == set()
    assert message(tmp_path).endswith("is not in the store; run again: it will be built")
    assert not list((tmp_path / "tmp").iterdir())
    build(tmp_path)
    assert Store(tmp_path).ids() == {ID}


def test_discarding_goes_on_where_a_killed_one_stopped(tmp_path):
    """It had moved the folder and removed a part of it; meanwhile it was built and broke again."""
    build(tmp_path)
    shutil.copytree(tmp_path / "artifacts" / ID, tmp_path / "tmp" / ID)
    Store(tmp_path).discard(ID)
    assert Store(tmp_path).ids() == set()
    assert not list((tmp_path / "tmp").iterdir())


def test_names_point_and_move(tmp_path):
    store = Store(tmp_path)
    store.point({"train/de": "1", "train/en": "2"})
    store.point({"train/de": "3"})
    assert store.names() == {"train/de": "3", "train/en": "2"}


def test_forgotten_names_leave_their_artifacts(tmp_path):
    build(tmp_path)
    store = Store(tmp_path)
    store.point({"train/de": ID, "train/en": "2"})
    store.forget(["train/de", "never heard of"])
    assert store.names() == {"train/en": "2"}
    assert store.ids() == {ID}


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": ', b"\xff", None])
def test_names_that_cannot_be_read_are_those_of_the_newest_artifacts(tmp_path, caplog, content):
    names = {"train/de": digest("new de"), "train/en": digest("en")}
    built = [("train/de", digest("old de")), *names.items(), ("train/ja", digest("broken"))]
    for seconds, (name, artifact) in enumerate(built):
        with Store(tmp_path).building(artifact, name, {}):
            pass
        manifest = tmp_path / "artifacts" / artifact / "manifest.json"
        os.utime(manifest, (seconds, seconds))
    manifest.write_bytes(b"")
    if content is not None:
        (tmp_path / "names.json").write_bytes(content)
    assert Store(tmp_path).names() == names
    store = Store(tmp_path)
    store.point({"train/de": names["train/de"]})
    assert json.loads((tmp_path / "names.json").read_text()) == names
    said = f"{tmp_path}/names.json cannot be read; the newest artifact of each name is taken"
    assert caplog.messages[:1] == ([] if content is None else [said])


def test_pointing_again_writes_nothing(tmp_path):
    store = Store(tmp_path)
    store.point({"a": "1"})
    before = (tmp_path / "names.json").stat().st_ino
    store.point({"a": "1"})
    assert (tmp_path / "names.json").stat().st_ino == before


def test_an_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_atomic_write_takes_names_that_are_no_unicode(tmp_path):
    """As JSON it comes back as it was."""
    write_atomically(tmp_path / "file", json.dumps("a\udcff", ensure_ascii=False))
    assert json.loads((tmp_path / "file").read_bytes()) == "a\udcff"


PARTS_LEFT = """
import os, signal, sys
from pathlib import Path
from koinize.store import write_atomically
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), "new")
"""


def test_what_a_killed_write_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "fi[l]e"
    subprocess.run([sys.executable, "-c", PARTS_LEFT, str(path)], check=False)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".fi[l]e-")
    assert left.name.endswith(".part")
    (tmp_path / ".file-of-somebody").write_text("else")
    with (tmp_path / ".fi[l]e-written-now.part").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        write_atomically(path, "new")
    assert path.read_text() == "new"
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        ".fi[l]e-written-now.part",
        ".file-of-somebody",
        "fi[l]e",
    ]


def test_an_atomic_write_is_on_disk_with_its_folder(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink())
    )
    write_atomically(tmp_path / "file", "text")
    assert [one.name.endswith(".part") for one in synced] == [True, False]
    assert synced[1] == tmp_path


def test_what_a_broken_artifact_was_made_from_is_known_until_it_is_made_again(tmp_path):
    build(tmp_path)
    store = Store(tmp_path)
    assert store.lost(ID) is None
    store.lose(ID)
    assert store.ids() == set()
    assert store.manifest(ID) is None
    assert store.lost(ID).inputs == {"rows de": "0a"}
    build(tmp_path)
    assert store.lost(ID) is None


def test_a_broken_manifest_is_not_remembered(tmp_path):
    build(tmp_path)
    (tmp_path / "artifacts" / ID / "manifest.json").write_text("{}")
    Store(tmp_path).lose(ID)
    assert Store(tmp_path).ids() == set()
    assert Store(tmp_path).lost(ID) is None
