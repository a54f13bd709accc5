"""Data and base that change while nobody looks, and memories that koinize did not write."""

import json
import os

import pytest

from koinize.errors import BrokenError, InputError, KoinizeError, StepError
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.ledger import Ledger
from koinize.ledger.address import Address
from koinize.merge.recipe import merge_settings
from koinize.model import base
from koinize.model.base import BaseSpec, damaged, identity
from koinize.pipeline import inputs as inputs_module
from koinize.pipeline import work
from koinize.pipeline.experience import Experience, recall
from koinize.pipeline.inputs import survey
from koinize.pipeline.lineage import EXAMPLES, read_learnt
from koinize.pipeline.overrides import refuse_contradictions
from koinize.pipeline.step import Step
from koinize.pipeline.work import Job, read_result_rows
from koinize.spec import load
from koinize.store import Artifact, Store, read_record, write_record

HELD = (b"good", b"evil")


def in_place(path, change=HELD):
    """Other bytes, the size and the time of the content as they were."""
    before, content = path.stat(), path.read_bytes()
    assert change[0] in content
    path.write_bytes(content.replace(*change, 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def model(tmp_path):
    write_tiny_base(tmp_path / "base")
    return tmp_path / "base" / "model.safetensors"


def flipped(path):
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_base_whose_bits_change_is_another_base(tmp_path, model):
    spec, digests = BaseSpec(model="base"), tmp_path / "digests"
    before = identity(spec, tmp_path, digests)
    assert damaged(spec, tmp_path, digests) == []
    flipped(model)
    assert identity(spec, tmp_path, digests) != before


def test_the_doctor_finds_bits_that_changed_without_a_time(tmp_path, model, monkeypatch):
    spec, digests = BaseSpec(model="base"), tmp_path / "digests"
    real = base._memory_of
    monkeypatch.setattr(base, "_memory_of", lambda *one: (real(*one)[0], ["as before"]))
    before = identity(spec, tmp_path, digests)
    flipped(model)
    assert identity(spec, tmp_path, digests) == before
    assert damaged(spec, tmp_path, digests) == [model]


def test_rows_that_change_are_read_again(small):
    memory = small.root / "memory.json"
    spec = load(small.root / "koinize.yaml")
    before = survey(spec, small.root, memory)
    in_place(small.root / "data" / "de.train.jsonl", (b"train 0", b"train X"))
    assert survey(spec, small.root, memory) != before


def test_rows_that_change_without_a_time(small, monkeypatch):
    monkeypatch.setattr(inputs_module, "_stamp", lambda _: [1])
    memory = small.root / "memory.json"
    spec = load(small.root / "koinize.yaml")
    before = survey(spec, small.root, memory)
    assert inputs_module.damaged(spec, small.root, memory) == []
    in_place(small.root / "data" / "de.train.jsonl", (b"train 0", b"train X"))
    in_place(small.root / "data" / "en.dev.jsonl", (b"good", b"\xff\xff\xff\xff"))
    assert survey(spec, small.root, memory) == before
    found = inputs_module.damaged(spec, small.root, memory)
    assert found == ["data/de.train.jsonl", "data/en.dev.jsonl"]


def test_a_step_whose_base_changes_makes_nothing(small, model, monkeypatch):
    spec = load(small.root / "koinize.yaml")
    home = small.root / ".koinize"
    known = identity(spec.base, small.root, home / "digests")
    step = Step(Address("evaluate", "mood"), inputs={"base": known}, units=1)
    job = Job(step, spec, small.root, home, 1)

    def perform(job, store, draft):
        flipped(model)
        return {}

    monkeypatch.setattr("koinize.pipeline.kinds.evaluate.perform", perform)
    with pytest.raises(StepError, match="base the base model changed while it was used; run again"):
        work.perform(job)
    assert Store(home).ids() == set()


ODD = [
    {},
    {"stamp": 3},
    {"stamp": []},
    {"stamp": [], "facts": {"digest": 3}},
    {"stamp": [], "facts": {"digest": "x", "rows": -1, "bytes": 0}, "content": "x"},
    {"stamp": [], "facts": {"digest": "x", "rows": 1, "bytes": 0}},
    [],
    "x",
    None,
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_memories_of_data_are_none(small, odd):
    memory = small.root / "memory.json"
    spec = load(small.root / "koinize.yaml")
    whole = survey(spec, small.root, memory)
    kept = read_record(memory)
    for key, entry in kept.items():
        if isinstance(entry, dict) and isinstance(odd, dict):
            stamp = {"stamp": entry["stamp"]} if odd.get("stamp") == [] else {}
            write_record(memory, {**kept, key: {**odd, **stamp}})
        else:
            write_record(memory, {**kept, key: odd})
        assert survey(spec, small.root, memory) == whole


@pytest.mark.parametrize("odd", [{"tallies": 3}, {"tallies": [["a"]]}, {"combined": []}, {}])
def test_odd_memories_of_time_are_none(tmp_path, odd):
    ledger, memory = Ledger(tmp_path / "ledger.jsonl"), tmp_path / "memory.json"
    with ledger.recording("gate/x", kind="gate", device="", price={}):
        pass
    whole = recall(ledger, memory)
    kept = read_record(memory)
    write_record(memory, {**kept, **odd} if odd else {"stamp": kept["stamp"]})
    assert recall(ledger, memory) == whole != Experience()


def artifact(folder, name, text):
    (folder / name).write_text(text)
    return Artifact("a" * 64, "n", {}, {}, {}, folder=folder)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("[]", "it is no such record: Input should be a valid dictionary"),
        ("{", "is not JSON"),
        ("[" * 5000, "is not JSON"),
        ('{"prediction": "x"}', "its field 'key': Field required"),
        ('{"key": "a"}', "its field 'prediction': Field required"),
        ('{"key": "a", "prediction": "x", "scores": 3}', "its field 'scores': Input should be"),
    ],
)
def test_odd_rows_of_an_evaluation(tmp_path, line, what):
    good = '{"key": "a", "prediction": "x\u2028", "other": {}}\n'
    assert len(read_result_rows(artifact(tmp_path, "rows.jsonl", good))) == 1
    with pytest.raises(KoinizeError) as caught:
        read_result_rows(artifact(tmp_path, "rows.jsonl", good + line + "\n"))
    assert str(caught.value).startswith(f"{tmp_path}/rows.jsonl:2 {what}")


@pytest.mark.parametrize("text", ["[]", "{", '{"de": 3}', '{"de": [1]}', json.dumps({"de": "x"})])
def test_odd_lists_of_what_was_learnt(tmp_path, text):
    with pytest.raises(BrokenError, match=r"its file examples\.json is no list of examples"):
        read_learnt(artifact(tmp_path, EXAMPLES, text))


def test_overrides_that_contradict_each_other_are_found_at_plan(tmp_path, model):
    layers = "model.layers.0"
    wrong = merge_settings(
        recipe="ties",
        overrides={"*q_proj": {"density": 0.3}, f"{layers}.*": {"density": 0.5}},
    )
    with pytest.raises(InputError) as caught:
        refuse_contradictions(wrong, model.parent)
    assert str(caught.value) == (
        f"module '{layers}.self_attn.q_proj' gets two values of 'density', from the overrides "
        f"'*q_proj' and '{layers}.*'; make the patterns disjoint"
    )
    refuse_contradictions(wrong, None)
    right = {"*q_proj": {"density": 0.3}, "*k_proj": {"density": 0.5}, "*embed*": {"density": 0.1}}
    refuse_contradictions(merge_settings(recipe="ties", overrides=right), model.parent)


@pytest.mark.parametrize("name", ["ledger.jsonl", "inputs.json", "names.json", "experience.json"])
def test_pipes_and_folders_in_the_place_of_records(small, monkeypatch, name):
    project = small.project(monkeypatch)
    project.plan()
    path = small.root / ".koinize" / name
    for make in (os.mkfifo, os.mkdir):
        path.unlink(missing_ok=True)
        make(path)
        if name == "ledger.jsonl":
            with pytest.raises(KoinizeError, match=r"ledger\.jsonl cannot be read: "):
                small.project(monkeypatch).plan()
        else:
            small.project(monkeypatch).plan()
            Store(small.root / ".koinize").names()
