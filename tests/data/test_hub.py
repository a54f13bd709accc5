"""Data sets of the hub, with the library played by a stand-in: no test needs a network."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from koinize.data import read_rows
from koinize.errors import InputError


@pytest.fixture
def calls(monkeypatch):
    """What `datasets.load_dataset` was asked for; it answers with two rows."""
    seen: list[dict[str, object]] = []

    def load_dataset(**arguments):
        seen.append(arguments)
        if arguments["path"] == "owner/none":
            raise ConnectionError("no route to the hub.\nAnd a long story")
        return [{"text": "a"}, {"text": "b"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return seen


@pytest.mark.parametrize(
    ("source", "name", "revision", "split"),
    [
        ("hf:owner/set#train", None, None, "train"),
        ("hf:owner/set:ja#test", "ja", None, "test"),
        ("hf:owner/set@2f1c0de#train[:10%]", None, "2f1c0de", "train[:10%]"),
        ("hf:owner/set:ja@v1.0#validation", "ja", "v1.0", "validation"),
    ],
)
def test_a_source_says_all_that_the_library_asks_for(calls, source, name, revision, split):
    rows = read_rows(source, Path())

    expected = {"path": "owner/set", "name": name, "revision": revision, "split": split}
    assert calls == [expected]
    assert [(dict(row.columns), row.where) for row in rows] == [
        ({"text": "a"}, f"{source}:1"),
        ({"text": "b"}, f"{source}:2"),
    ]


@pytest.mark.parametrize("source", ["hf:owner/set", "hf:#train", "hf:owner/set#", "hf:a b#train"])
def test_a_source_that_cannot_be_read(calls, source):
    with pytest.raises(InputError) as caught:
        read_rows(source, Path())

    assert str(caught.value) == (
        f"{source} the name of this dataset cannot be read; "
        "expected hf:owner/name[:config][@revision]#split"
    )
    assert calls == []


def test_a_hub_out_of_reach(calls):
    with pytest.raises(InputError) as caught:
        read_rows("hf:owner/none#train", Path())

    assert str(caught.value) == (
        "hf:owner/none#train the dataset cannot be loaded: ConnectionError: no route to the hub; "
        "check the name, the split and the network, or give a file"
    )


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)

    with pytest.raises(InputError) as caught:
        read_rows("hf:owner/set#train", Path())

    assert str(caught.value) == (
        "hf:owner/set#train reading from the hub needs the package datasets, "
        "which is not installed; pip install 'koinize[hub]'"
    )
