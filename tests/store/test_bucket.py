"""A store in a bucket: committed by one request, checked on every machine, right after any cut."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading

import pytest

from koinize.digest import digest
from koinize.errors import BrokenError, InputError, KoinizeError
from koinize.store import Store, bucket, cache, objects
from koinize.store.spec import StoreSpec
from tests.store.servers import Wire, refusing

ID, OTHER = digest("an artifact"), digest("another")
BUILT = {"adapter/weights": b"\x01\x02" * 5000, "report": "text \u00e4".encode(), "empty": b""}


def build(store: Store, artifact: str = ID, name: str = "train/de", files=BUILT, **facts) -> None:
    with store.building(artifact, name, {"rows de": "0a"}) as draft:
        for file, content in files.items():
            (draft.folder / file).parent.mkdir(parents=True, exist_ok=True)
            (draft.folder / file).write_bytes(content)
        draft.facts.update(facts)


def read(store: Store, artifact: str = ID) -> dict[str, bytes]:
    found = store.open(artifact)
    return {name: found.path(name).read_bytes() for name in found.files}


def attempts(shared) -> set[str]:
    return {key.split("/")[2] for key in shared.written() if key.startswith("artifacts/")}


@pytest.mark.slow
def test_what_one_machine_commits_another_opens(shared):
    build(shared.machine("a"), tokens=7)
    b = shared.machine("b")
    assert b.ids() == {ID}
    assert read(b) == BUILT
    assert (b.open(ID).facts, b.open(ID).inputs, b.open(ID).name) == (
        {"tokens": 7},
        {"rows de": "0a"},
        "train/de",
    )
    [attempt] = attempts(shared)
    assert shared.written() == sorted(
        [f"manifests/{ID}.json", *(f"artifacts/{ID}/{attempt}/{name}" for name in BUILT)]
    )
    assert not (shared.home("a") / "artifacts" / ID).exists(), "what is sent is a copy"
    assert read(shared.machine("a")) == BUILT
    assert shared.machine("b").size(ID) == sum(map(len, BUILT.values()))
    assert list((shared.home("b") / "tmp").iterdir()) == []


def test_of_two_writers_the_first_is_right_for_both(shared):
    """Both have uploaded their files when the first one commits."""
    with shared.machine("a").building(ID, "slow", {}) as slow:
        (slow.folder / "who").write_text("slow")
        build(shared.machine("b"), name="quick", files={"who": b"quick"})
    for name in "abc":
        assert shared.machine(name).open(ID).name == "quick"
        assert read(shared.machine(name)) == {"who": b"quick"}
    assert len(attempts(shared)) == 1
    assert not (shared.home("a") / "artifacts" / ID).exists()


def test_writers_that_race_agree(shared):
    start = threading.Barrier(4)

    def write(name: str) -> None:
        store = shared.machine(name)
        start.wait()
        build(store, files={"who": name.encode()})

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = {read(shared.machine(name))["who"] for name in "abcdef"}
    assert len(found) == 1
    assert len(attempts(shared)) == 1


def test_a_commit_whose_answer_was_lost_meets_itself(shared):
    """The request arrives, its answer does not: the next try finds the object that it wrote."""
    wire = Wire(shared.port)
    store = shared.machine("a")
    shared.connect(wire.port)
    wire.cut, wire.cuts = len(BUILT) + 1, 1  # the manifest's request is the last
    build(store)
    assert wire.cuts == 2
    shared.connect(shared.port)
    assert read(shared.machine("b")) == BUILT
    assert len(attempts(shared)) == 1
    wire.close()


@pytest.mark.parametrize("every", [2, 3])
def test_cut_connections_change_nothing(shared, every):
    wire = Wire(shared.port)
    shared.connect(wire.port)
    wire.cut = every
    wanted = {digest(n): {"file": str(n).encode() * 1000, "other": b"x"} for n in range(4)}
    for artifact, files in wanted.items():
        build(shared.machine("a"), artifact, f"train/{artifact}", files)
        shared.machine("a").point({f"train/{artifact}": artifact})
    b = shared.machine("b")
    assert b.ids() == set(wanted)
    assert {artifact: read(b, artifact) for artifact in wanted} == wanted
    assert b.names() == {f"train/{artifact}": artifact for artifact in wanted}
    assert len(attempts(shared)) == len(wanted)
    assert wire.cuts > 5
    wire.close()


class _Killed(BaseException):
    """As abrupt as a kill can be in this process: nobody handles it."""


@pytest.mark.parametrize("sent", range(len(BUILT) + 1))
def test_a_writer_that_ends_between_two_files(shared, monkeypatch, sent):
    """Nobody sees an artifact; its own next run sends it; what it had sent is swept by age."""
    real, left = objects.Objects.upload, iter(range(sent))

    def upload(*arguments) -> None:
        if next(left, None) is None:
            raise _Killed
        real(*arguments)

    def create(*_) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(objects.Objects, "upload", upload)
        patch.setattr(objects.Objects, "create", create)
        with pytest.raises(_Killed):
            build(shared.machine("a"))
    assert len(attempts(shared)) == min(sent, 1)
    b = shared.machine("b")
    assert (b.ids(), b.manifest(ID)) == (set(), None)
    shared.machine("a").settle()
    assert read(b) == BUILT
    assert not (shared.home("a") / "artifacts" / ID).exists()
    assert b.orphans() == [], "whoever wrote it may still be at work"
    monkeypatch.setattr(bucket, "ORPHAN_SECONDS", -86400)
    assert len(b.orphans()) == min(sent, 1)
    b.remove_orphans()
    assert len(attempts(shared)) == 1
    assert read(shared.machine("c")) == BUILT


def spoil(shared, part: str, change) -> None:
    """Change the objects whose key has this part in it."""
    for key in shared.written():
        if part in key:
            content = change(shared.objects.get(key).content)
            shared.objects.delete([key])
            if content is not None:
                shared.objects.overwrite(key, content)


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize(
    ("part", "change", "what"),
    [
        ("report", flipped, "its file report is missing or has changed"),
        ("weights", lambda content: content[:-1], "its file adapter/weights is missing or has"),
        ("weights", lambda _: None, "its file adapter/weights is missing or has changed"),
        ("manifests", flipped, "its manifest.json cannot be read"),
        ("manifests", lambda c: c.replace(b"train", b"brain"), "its manifest.json has changed"),
        ("manifests", lambda c: c.replace(b'attempt": "', b'attempt": "../'), "its manifest.json"),
        ("manifests", lambda _: b"{}", "its manifest.json cannot be read"),
    ],
)
def test_what_was_tampered_with_is_broken_and_can_be_made_again(shared, part, change, what):
    build(shared.machine("a"))
    spoil(shared, part, change)
    b = shared.machine("b")
    with pytest.raises(BrokenError) as caught:
        b.open(ID)
    assert str(caught.value).startswith(
        f"{shared.url}/artifacts/{ID} artifact {ID[:12]} is broken: {what}"
    )
    assert caught.value.artifact == ID
    b.lose(ID)
    assert (b.ids(), shared.machine("a").ids()) == (set(), set())
    build(b, files={"report": b"again"})
    assert read(shared.machine("a")) == {"report": b"again"}


def test_a_copy_that_rots_is_brought_again(shared):
    build(shared.machine("a"))
    b = shared.machine("b")
    [path] = [b.open(ID).path("report")]
    path.write_bytes(b"rotten")
    (b.home.cache / "manifests" / f"{ID}.json").write_text("rotten")
    assert read(shared.machine("b")) == BUILT


def test_what_another_machine_made_again_replaces_the_copy(shared):
    build(shared.machine("a"))
    b = shared.machine("b")
    assert read(b) == BUILT
    a = shared.machine("a")
    a.discard(ID)
    assert (shared.written(), shared.machine("b").ids()) == ([], set())
    build(a, files={"report": b"again"})
    assert read(shared.machine("b")) == {"report": b"again"}


def test_the_oldest_copies_go_when_there_is_no_room(shared):
    many = [digest(n) for n in range(4)]
    for artifact in many:
        build(shared.machine("a"), artifact, files={"file": b"x" * 1000})
    b = shared.machine("b", cache_gigabytes=2.5e-6)  # room for two

    def copied() -> list[str]:
        return sorted(one.parent.name for one in (b.home.cache / "files").glob("*/*"))

    for artifact in many[:3]:
        b.open(artifact)
    assert copied() == sorted(many[:3]), "what was just asked for may be read right now"
    for age, artifact in enumerate(many[:3]):
        [copy] = (b.home.cache / "files" / artifact).iterdir()
        os.utime(copy, (0, copy.stat().st_mtime - cache.IN_USE_SECONDS - 10 + age))
    b.open(many[3])
    assert copied() == sorted(many[2:])
    assert read(shared.machine("b"), many[0]) == {"file": b"x" * 1000}


def test_a_name_that_one_machine_points_is_not_lost_to_another(shared):
    start = threading.Barrier(3)

    def point(machine: str) -> None:
        store = shared.machine(machine)
        start.wait()
        for number in range(5):
            store.point({f"{machine}/{number}": str(number)})

    threads = [threading.Thread(target=point, args=(name,)) for name in "abc"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    expected = {f"{name}/{number}": str(number) for name in "abc" for number in range(5)}
    assert shared.machine("d").names() == expected
    shared.machine("d").forget([name for name in expected if name[0] != "a"])
    assert len(shared.machine("a").names()) == 5


@pytest.mark.parametrize("content", [b"[1]", b'{"a": ', None])
def test_names_that_are_lost_are_those_of_the_newest_artifacts(shared, caplog, content):
    a = shared.machine("a")
    build(a, ID, "train/de")
    a.point({"train/de": ID, "train/gone": OTHER})
    spoil(shared, "names.json", lambda _: content)
    b = shared.machine("b")
    assert b.written_names() is None
    said = f"{shared.url}/names.json cannot be read; the newest artifact of each name is taken"
    assert caplog.messages == ([] if content is None else [said])
    assert b.names() == {"train/de": ID}
    b.point({"train/en": OTHER})
    assert shared.machine("a").names() == {"train/de": ID, "train/en": OTHER}


def test_what_was_made_before_the_store_was_shared_is_sent(shared):
    """And names with it, of which those that the bucket has win."""
    alone = Store(shared.home("a"))
    build(alone)
    build(alone, OTHER, "train/en")
    (shared.home("a") / "artifacts" / OTHER / "report").write_bytes(b"rotten")
    alone.point({"train/de": ID, "train/en": OTHER})
    shared.machine("b").point({"train/en": ID})
    assert shared.machine("a").ids() == {ID, OTHER}
    shared.machine("a").settle()
    b = shared.machine("b")
    assert b.ids() == {ID}, "what is broken is not sent"
    assert read(b) == BUILT
    assert b.names() == {"train/de": ID, "train/en": ID}
    with pytest.raises(BrokenError, match="its file report is missing or has changed"):
        shared.machine("a").open(OTHER)


def refusal(act) -> str:
    with pytest.raises(InputError) as caught:
        act()
    assert caught.value.exit_code == 2
    assert "very-secret" not in str(caught.value)
    return str(caught.value)


REFUSED = [
    (404, "NoSuchBucket", "there is no such bucket; create it, or mend the URL"),
    (
        403,
        "RequestTimeTooSkewed",
        "refuses requests of another time: the clock of this machine or the store's is wrong; "
        "set the clock right",
    ),
    (
        403,
        "AccessDenied",
        "refused the request (AccessDenied); expected credentials that may read, list, write and "
        "delete there; docs/store.md says where they come from; what was finished is kept here",
    ),
    (400, "KeyTooLong", "answered with an error (KeyTooLong); run again: nothing is lost"),
]


@pytest.mark.parametrize(("status", "code", "said"), REFUSED, ids=[code for _, code, _ in REFUSED])
def test_each_refusal_is_one_message_and_loses_nothing(shared, status, code, said):
    with refusing(status, code) as port:
        shared.connect(port)
        a = shared.machine("a")
        for act in (a.ids, a.names, a.settle, lambda: a.point({"x": "1"}), lambda: a.open(ID)):
            assert refusal(act) == f"{shared.url} {said}"
        assert refusal(lambda: build(a)) == f"{shared.url} {said}"
    shared.connect(shared.port)
    a.settle()
    assert read(shared.machine("b")) == BUILT


def test_a_store_that_may_only_be_read(shared):
    build(shared.machine("a"))
    with refusing(403, "AccessDenied", only="PUT POST DELETE", target=shared.port) as port:
        shared.connect(port)
        b = shared.machine("b")
        assert read(b) == BUILT
        assert "refused the request (AccessDenied)" in refusal(b.settle)
    shared.connect(shared.port)
    assert read(shared.machine("c")) == BUILT


def test_a_store_out_of_reach(shared, monkeypatch):
    monkeypatch.setitem(objects.RETRIES, "max_retries", 0)
    said = (
        f"{shared.url} cannot be reached; mend the connection or the endpoint and run again: what "
        "was finished is kept here"
    )
    a = shared.machine("a")
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        shared.connect(nobody_listens.getsockname()[1])
        assert refusal(a.ids) == said
        assert refusal(lambda: build(a)) == said
    shared.connect(shared.port)
    a.settle()
    assert read(shared.machine("b")) == BUILT


def test_what_a_killed_write_left_in_the_cache_is_swept(shared):
    a = shared.machine("a")
    build(a)
    left = a.home.cache / "manifests" / f".{ID}.json-1f.part"
    left.touch()
    a.sweep()
    assert not left.exists()
    assert read(a) == BUILT


def test_what_is_no_artifact_is_not_listed(shared):
    build(shared.machine("a"))
    for key in ("manifests/notes.json", "artifacts/notes", "artifacts/x/y", "else"):
        shared.objects.overwrite(key, b"")
    b = shared.machine("b")
    assert b.ids() == {ID}
    assert b.orphans() == []
    message = f"{shared.url}/artifacts artifact {OTHER[:12]} is not in the store; run again"
    with pytest.raises(KoinizeError, match=message):
        b.open(OTHER)
    b.discard(OTHER)


def test_how_many_requests_an_artifact_takes(shared):
    """Writing: one for each file and one for the manifest. Reading: one more than files. Then
    nothing but the question whether it is still so, and with a listing not even that.
    """
    wire = Wire(shared.port)
    shared.connect(wire.port)

    def exchanges(act) -> int:
        before = wire.exchanges
        act()
        return wire.exchanges - before

    assert exchanges(lambda: build(shared.machine("a"))) == len(BUILT) + 1
    assert exchanges(lambda: shared.machine("b").open(ID)) == len(BUILT) + 1
    assert exchanges(lambda: shared.machine("b").open(ID)) == 1
    b = shared.machine("b")
    assert exchanges(b.ids) == 1
    assert exchanges(lambda: b.open(ID)) == 0
    wire.close()


def test_credentials_of_a_profile(shared, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    path.write_text("[team]\naws_access_key_id = key\naws_secret_access_key = very-secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    objects._client.cache_clear()
    build(shared.machine("a"))
    assert read(shared.machine("b")) == BUILT
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    objects._client.cache_clear()
    assert refusal(shared.machine("a").ids) == (
        f"{tmp_path}/config the profile that AWS_PROFILE names, or what stands in it, cannot be "
        "used; mend the profile, or name another one"
    )


def test_an_account_that_nobody_named(tmp_path, monkeypatch):
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    objects._client.cache_clear()
    assert refusal(Store(tmp_path, StoreSpec(url="az://shared/x")).ids) == (
        "az://shared/x cannot be used: the environment lacks what the store needs, or has it "
        "wrong; docs/store.md says what is read"
    )


def test_an_object_store_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    objects._client.cache_clear()
    for scheme, extra in (("s3", "s3"), ("gs", "gcs"), ("az", "azure")):
        store = Store(tmp_path, StoreSpec(url=f"{scheme}://shared/x"))
        assert refusal(store.ids) == (
            f"{scheme}://shared/x an object store needs a package that is not installed; "
            f"run `pip install 'koinize[{extra}]'`"
        )


def test_a_manifest_names_its_attempt(shared):
    build(shared.machine("a"))
    record = json.loads(shared.objects.get(f"manifests/{ID}.json").content)
    assert {record["attempt"]} == attempts(shared)
    assert json.loads(record["manifest"])["id"] == ID
