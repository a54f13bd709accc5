"""Plug-ins are files: found by name, loaded on first use."""

from __future__ import annotations

import sys

import pytest

from koinize.catalog import Catalog
from koinize.errors import InputError


@pytest.fixture
def fruits(tmp_path, monkeypatch):
    """A package of plug-ins of the kind `fruit`, whose modules note that they were imported."""
    package = tmp_path / "fruits"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_press.py").write_text("fruit = 'machinery'")
    (package / "red_apple.py").write_text("fruit = 'an apple'")
    (package / "pear.py").write_text("fruit = 'a pear'")
    (package / "melon").mkdir()
    (package / "melon" / "__init__.py").write_text("fruit = 'a melon'")
    (package / "notes.txt").write_text("no module")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Catalog[str]("fruits", "fruit")
    for name in [name for name in sys.modules if name.partition(".")[0] == "fruits"]:
        del sys.modules[name]


def test_names_are_the_files_and_importing_is_left_for_later(fruits):
    assert fruits.names() == ("melon", "pear", "red-apple")
    assert not [name for name in sys.modules if name.startswith("fruits")]


def test_one_is_loaded_and_the_others_are_not(fruits):
    assert fruits.get("red-apple") == "an apple"
    assert "fruits.red_apple" in sys.modules
    assert "fruits.pear" not in sys.modules


def test_a_folder_is_a_plug_in_too(fruits):
    assert fruits.get("melon") == "a melon"


@pytest.mark.parametrize(
    ("name", "where", "message"),
    [
        ("red-aple", "", "unknown fruit 'red-aple'; did you mean 'red-apple'?"),
        ("red_apple", "", "unknown fruit 'red_apple'; did you mean 'red-apple'?"),
        ("_press", "a:1", "a:1 unknown fruit '_press'; choose one of: melon, pear, red-apple"),
        ("os.path", "", "unknown fruit 'os.path'; choose one of: melon, pear, red-apple"),
    ],
)
def test_an_unknown_name(fruits, name, where, message):
    with pytest.raises(InputError) as caught:
        fruits.get(name, where=where)
    assert str(caught.value) == message


def test_a_package_that_is_not_there_has_no_names():
    assert Catalog[str]("nosuchpackage", "thing").names() == ()
