"""Every reader of koinize, fed with damage: it reads or refuses in words, and ends.

For a record with a digest of its own the damage comes in two ways: to the bytes, and to the values
with the digest made right again, as another tool or version might have written them.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from koinize.adapter import open_adapter
from koinize.data import read_rows
from koinize.digest import digest, file_digest
from koinize.engine.verify import verify_adapter
from koinize.ledger import Heartbeat, Ledger
from koinize.ledger.summary import everything, kinds, runs
from koinize.model import base
from koinize.pipeline.experience import recall
from koinize.pipeline.inputs import survey
from koinize.pipeline.interference import interference
from koinize.pipeline.lengths import measure, refuse, warnings
from koinize.pipeline.lineage import EXAMPLES, read_learnt
from koinize.pipeline.run import locked
from koinize.pipeline.work import ROWS, read_result_rows
from koinize.release.archive import Event, Releases
from koinize.release.attempts import Attempts
from koinize.release.changes import changes
from koinize.spec import load
from koinize.store import MANIFEST, Artifact, Store, read_record, write_record
from tests.fuzzing import FEW, MANY, attack, damaged, odd
from tests.peft_folders import save
from tests.pipeline.steps import step_named

OLD = Path(__file__).parent / "pipeline" / "projects" / "0.1.0.tar.xz"
COUNTS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
ID = "a" * 64


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A finished project of an earlier version; not to be changed."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


def bytes_of(path):
    """Writes damaged bytes of what the file holds."""
    content = path.read_bytes()

    def write(chance):
        path.write_bytes(damaged(content, chance))

    return write


def values_of(path, *, own=True):
    """Writes the file's JSON with odd values, the digest in it right."""
    whole = json.loads(path.read_bytes())
    kept = {key: part for key, part in whole.items() if not (own and key == "digest")}

    def write(chance):
        value = odd(kept, chance)
        if own and isinstance(value, dict):
            value = {**value, "digest": digest(json.loads(json.dumps(value)))}
        path.write_text(json.dumps(value))

    return write


def lines_of(path):
    """Writes the ledger with a line of odd values, every digest right."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    def write(chance):
        number, previous, written = chance.randrange(len(lines)), "0" * 64, []
        for index, line in enumerate(lines):
            kept = {key: one for key, one in line.items() if key not in ("digest", "previous")}
            value = odd(kept, chance) if index == number else kept
            value = value if isinstance(value, dict) else {"event": value}
            value = json.loads(json.dumps({**value, "previous": previous}))
            previous = digest(value)
            written.append(json.dumps({**value, "digest": previous}) + "\n")
        path.write_text("".join(written))

    return write


def both(write):
    """Either way of damage, as often as the other."""
    ways = list(write)
    return lambda chance: chance.choice(ways)(chance)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter(tmp_path, file, count):
    folder = save(tmp_path / "en", 0, rank_pattern={"q_proj": 3}, alpha_pattern={"v_proj": 1})

    def read():
        with open_adapter(folder) as adapter:
            for module in adapter.header.modules:
                adapter.factors(module)

    ways = [bytes_of(folder / file)]
    if file.endswith("json"):
        ways.append(values_of(folder / file, own=False))
    done, refused = attack(read, count, 1, write=both(ways))
    assert done
    assert refused > count // 3


@pytest.mark.parametrize("count", COUNTS)
def test_a_card(tmp_path, count):
    from koinize.engine import merge_adapters

    merge_adapters({"en": save(tmp_path / "en", 0)}, recipe="sum", out=tmp_path / "out")
    card = tmp_path / "out" / "README.md"
    attack(lambda: verify_adapter(tmp_path / "out"), count, 2, write=bytes_of(card))


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
def test_koinize_yaml(tmp_path, project, count):
    path = tmp_path / "koinize.yaml"
    shutil.copy(project / "koinize.yaml", path)
    done, refused = attack(lambda: load(path), count, 3, write=bytes_of(path))
    assert done
    assert refused


ROW = {"text": "für 日本, \u2028", "label": "good", "n": 1.5, "list": ["a", None, {"b": True}]}
TABLES = {
    "jsonl": "".join(json.dumps({**ROW, "n": n}, ensure_ascii=False) + "\n" for n in range(9)),
    "json": json.dumps([ROW] * 9, indent=1),
    "csv": 'text,label\n"a, b",good\n' + "x;y,bad\n" * 9,
    "tsv": "text\tlabel\n" + "x y\tbad\n" * 9,
}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", [*TABLES, "parquet"])
def test_rows(tmp_path, suffix, count):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"] * 9, "n": [1, 2] * 9}), path)
    else:
        path.write_text(TABLES[suffix], encoding="utf-8")
    count = min(count, 1000) if suffix == "parquet" else count
    done, refused = attack(lambda: read_rows(path.name, tmp_path), count, 4, write=bytes_of(path))
    assert done
    assert refused


def copied(project, tmp_path):
    """A copy to damage."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    return folder


def first(project, name):
    """The first artifact that holds this file."""
    artifacts = sorted((project / ".koinize" / "artifacts").iterdir())
    return next(one for one in artifacts if (one / name).exists())


@pytest.mark.parametrize("count", COUNTS)
def test_a_manifest(tmp_path, project, count):
    project = copied(project, tmp_path)
    folder = first(project, ROWS)
    store = Store(project / ".koinize")
    path = folder / MANIFEST

    def read():
        manifest = store.manifest(folder.name)
        facts = manifest.facts
        float(facts["seconds"]), int(facts.get("tokens", 0)), sum(facts.get("rows", {}).values())
        Store(project / ".koinize").open(folder.name)

    attack(read, count, 5, write=both([bytes_of(path), values_of(path)]))


@pytest.mark.parametrize("count", COUNTS)
def test_the_names(tmp_path, project, count):
    path = tmp_path / "names.json"
    shutil.copy(project / ".koinize" / "names.json", path)
    read = Store(tmp_path).names
    ways = [bytes_of(path), values_of(path, own=False)]
    assert attack(read, count, 6, write=both(ways))[1] == 0  # what is lost costs nothing


@pytest.mark.parametrize("count", COUNTS)
def test_the_ledger(tmp_path, project, count):
    path = tmp_path / "ledger.jsonl"
    lines = (project / ".koinize" / "ledger.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]))

    def read():
        ledger = Ledger(path)
        intervals = ledger.intervals()
        ledger.setbacks(), everything(intervals), kinds(intervals), runs(intervals)
        for one in runs(intervals):
            one.to_dict()
        recall(ledger, tmp_path / "memory.json")

    attack(read, count, 7, write=both([bytes_of(path), lines_of(path)]))


@pytest.mark.parametrize("count", COUNTS)
def test_a_heartbeat(tmp_path, count):
    path = tmp_path / "heartbeat"
    path.write_text("1a2b3c4d 123.456")
    assert attack(lambda: Heartbeat.read(path), count, 8, write=bytes_of(path))[1] == 0


@pytest.mark.parametrize("count", COUNTS)
def test_who_holds_the_lock(tmp_path, count):
    from koinize.errors import InputError

    home = tmp_path / ".koinize"
    with locked(home):
        path = home / "holder.json"

        def read():
            with pytest.raises(InputError, match="another koinize works here since"), locked(home):
                pass

        attack(read, count, 9, write=both([bytes_of(path), values_of(path, own=False)]))


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
def test_what_is_remembered_of_the_data(tmp_path, project, count):
    project = copied(project, tmp_path)
    spec, path = load(project / "koinize.yaml"), project / ".koinize" / "inputs.json"
    places = survey(spec, project, path).splits.keys()

    def read():
        found = survey(spec, project, path)
        assert found.splits.keys() == places
        sum(one.rows + one.bytes for one in found.splits.values())

    count = count // 10  # each time the data are read
    assert attack(read, count, 10, write=both([bytes_of(path), values_of(path)]))[1] == 0


@pytest.mark.parametrize("count", COUNTS)
def test_what_is_remembered_of_long_rows(tmp_path, project, count):
    project = copied(project, tmp_path)
    spec, path = load(project / "koinize.yaml"), tmp_path / "lengths.json"
    training = spec.training.model_copy(update={"max_length": 3})
    spec = spec.model_copy(update={"training": training})
    inputs = survey(spec, project, tmp_path / "inputs.json")
    rows = {"train rows de": 1}
    (task,) = spec.tasks
    steps = [step_named(f"train/{task}/de", languages=("de",), rows=rows)]

    def read():
        found = measure(spec, project, inputs, steps, path, lambda texts: ["cut"] * len(texts))
        assert len(found) == 2
        warnings(found), refuse(found)  # a memory whose digest is right may lie

    read()
    attack(read, count // 10, 30, write=both([bytes_of(path), values_of(path)]))


@pytest.mark.parametrize("count", COUNTS)
def test_what_is_remembered_of_time(tmp_path, project, count):
    ledger, path = Ledger(tmp_path / "ledger.jsonl"), tmp_path / "memory.json"
    with ledger.recording("gate/x", kind="gate", device="", price={}):
        pass
    recall(ledger, path)

    def read():
        found = recall(ledger, path)
        [tally.seconds + 1 for tally in (*found.tallies.values(), *found.combined.values())]

    assert attack(read, count, 11, write=both([bytes_of(path), values_of(path)]))[1] == 0


@pytest.mark.parametrize("count", COUNTS)
def test_what_is_remembered_of_the_base(tmp_path, count):
    file = tmp_path / "base.gguf"
    file.write_bytes(b"GGUF")
    spec = base.BaseSpec(model="base.gguf")
    whole = base.identity(spec, tmp_path, tmp_path / "digests")
    (path,) = (tmp_path / "digests").iterdir()

    def read():
        base.identity(spec, tmp_path, tmp_path / "digests")
        base.damaged(spec, tmp_path, tmp_path / "digests")

    assert attack(read, count, 12, write=both([bytes_of(path), values_of(path)]))[1] == 0
    path.unlink()
    assert base.identity(spec, tmp_path, tmp_path / "digests") == whole


@pytest.mark.parametrize("count", COUNTS)
def test_what_is_remembered_of_interference(tmp_path, count):
    store = Store(tmp_path)
    ids = {"de": "d" * 64, "en": "e" * 64}
    for seed, (name, artifact) in enumerate(ids.items()):
        with store.building(artifact, name, {}) as draft:
            for file in save(tmp_path / name, seed).iterdir():
                shutil.copy(file, draft.folder)
    interference(store, tmp_path, "t", ids)
    (path,) = (tmp_path / "interference").iterdir()

    def read():
        found = interference(store, tmp_path, "t", ids)
        sum(found["norms"]), sum(map(sum, found["cosine"]))

    count = count // 10  # each time the adapters are compared
    assert attack(read, count, 13, write=both([bytes_of(path), values_of(path)]))[1] == 0


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("file", [ROWS, EXAMPLES])
def test_what_an_artifact_holds(tmp_path, project, file, count):
    path = tmp_path / file
    if file == ROWS:
        content = (first(project, ROWS) / ROWS).read_text().splitlines(keepends=True)
        path.write_text("".join(content[:3]))
    else:
        path.write_text(json.dumps({"de": [ID, ID], "en": []}))
    read = read_result_rows if file == ROWS else read_learnt
    artifact = Artifact(ID, "n", {}, {}, {}, folder=tmp_path)
    attack(lambda: read(artifact), count, 14, write=bytes_of(path))


@pytest.mark.parametrize("count", COUNTS)
def test_a_channel(tmp_path, count):
    from koinize.release.archive import Channel

    releases = Releases(tmp_path, "mood")
    releases.folder.mkdir(parents=True)
    event = Event("2026-01-01T00:00:00+00:00", "promote", 1, None)
    releases.switch(Channel("production", (1,), (event,)))
    path = releases.folder / "production.json"

    def read():
        found = releases.channel("production")
        assert found.current is None or found.current > 0
        _ = found.anchor, found.latest

    attack(read, count, 15, write=both([bytes_of(path), values_of(path)]))


@pytest.mark.parametrize("count", COUNTS)
def test_the_attempts(tmp_path, count):
    from koinize.release.attempts import Attempt

    found = Attempts(tmp_path, "mood")
    found.save([Attempt("x", "production", ID, ID, 1, ID, 1, 0.025, 0.5, False, {"a": 1.0})])
    path = found.former

    def read():
        for one in found.all():
            assert 0 <= one.budget_left <= 1
        assert found.trial(ID, ID).level > 0

    attack(read, count, 16, write=both([bytes_of(path), values_of(path)]))


SCORE = {"language": "de", "metric": "m", "value": 1.0, "low": 0.0, "high": 2.0, "n": 3}
EVIDENCE = {
    "scores": [{**SCORE, "signature": "m|v:1"}],
    "data": {"test rows de": {"digest": ID, "rows": 3}},
    "cost": {"USD": "1"},
}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("file", ["release.json", "evidence/evidence.json"])
def test_a_release(tmp_path, file, count):
    from tests.release.test_release import RECORD

    def fill(folder):
        (folder / "evidence").mkdir()
        (folder / "evidence" / "evidence.json").write_text(json.dumps(EVIDENCE))

    releases = Releases(tmp_path, "mood")
    releases.add(1, RECORD, fill)
    path = releases.folder / "v1" / file
    path.chmod(0o644)

    def write(chance):
        ways(chance)
        if file != "release.json":  # whose digest is right again
            record = read_record(path.parents[1] / "release.json")
            (path.parents[1] / "release.json").chmod(0o644)
            record["files"][file] = file_digest(path)
            write_record(path.parents[1] / "release.json", record)

    def read():
        release = releases.open(1)
        changes(release, release).to_dict()

    own = file == "release.json"
    ways = both([bytes_of(path), values_of(path, own=own)])
    attack(read, count, 17, write=write)
