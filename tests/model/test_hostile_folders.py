"""Python beside every kind of input: none of it runs, and nobody is asked whether it may."""

import json
import os
import subprocess
import sys

import pytest

from koinize.data import read_rows
from koinize.errors import InputError, KoinizeError
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.model import base as base_module
from koinize.model.base import BaseSpec, identity, prepare
from koinize.model.loaded import load_model
from koinize.model.loading import load_gguf
from koinize.model.manner import PLAIN, manner
from tests.model.test_base import write_gguf

RAN = "ran"
HOSTILE = "import pathlib\npathlib.Path({!r}).write_text('x')\n"
MAPS = {
    "AutoConfig": "evil.Config",
    "AutoModelForCausalLM": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", None],
}


def plant(folder, tmp_path):
    """Files that name code, and the code, in every way that transformers knows."""
    code = HOSTILE.format(str(tmp_path / RAN))
    for name in ("evil", "modeling", "tokenization", "conftest", "custom_generate", "setup"):
        (folder / f"{name}.py").write_text(code)
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        path = folder / name
        kept = json.loads(path.read_text()) if path.exists() else {"model_type": "evil"}
        path.write_text(json.dumps({**kept, "auto_map": MAPS, "trust_remote_code": True}))


@pytest.fixture(autouse=True)
def yes(monkeypatch):
    """Whoever asks gets a yes."""
    read, write = os.pipe()
    os.write(write, b"y\n" * 50)
    os.close(write)
    with os.fdopen(read) as answers:
        monkeypatch.setattr(sys, "stdin", answers)
        yield


def test_beside_a_gguf_file(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    write_gguf(folder / "tiny.gguf")
    plant(folder, tmp_path)
    prepared = prepare(BaseSpec(model="models/tiny.gguf"), tmp_path, tmp_path / "cache")
    assert load_model(prepared, "float32", "cpu").model.config.model_type == "llama"
    load_gguf(folder / "tiny.gguf", "float32")
    assert not (tmp_path / RAN).exists()


def test_in_the_folder_of_a_model(tmp_path):
    write_tiny_base(tmp_path / "base")
    plant(tmp_path / "base", tmp_path)
    try:
        load_model(tmp_path / "base", "float32", "cpu")
    except InputError as error:
        assert "cannot be loaded as a causal language model" in str(error)  # noqa: PT017
    assert not (tmp_path / RAN).exists()


def test_an_adapter_beside_a_model_leads_nowhere(tmp_path):
    write_tiny_base(tmp_path / "base")
    (tmp_path / "base" / "adapter_config.json").write_text('{"base_model_name_or_path": "/x"}')
    said = f"{tmp_path}/base holds adapter_config.json beside a model, so it is two things"
    for use in (
        lambda: load_model(tmp_path / "base"),
        lambda: identity(BaseSpec(model="base"), tmp_path, tmp_path / "digests"),
    ):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize("other", ["../other.safetensors", "/etc/passwd", "gone.safetensors", 3])
def test_an_index_that_leads_elsewhere(tmp_path, other):
    write_tiny_base(tmp_path / "base")
    index = tmp_path / "base" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": other}}))
    with pytest.raises(InputError, match=f"names '{other}', which is no file beside it"):
        load_model(tmp_path / "base")


def test_a_data_set_that_lies_beside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "name.py").write_text(HOSTILE.format(str(tmp_path / RAN)))
    monkeypatch.setitem(sys.modules, "datasets", base_module)  # any module will do: it is not used
    with pytest.raises(InputError, match="'owner/name' is also a file or folder here"):
        read_rows("hf:owner/name#train", tmp_path)


@pytest.mark.parametrize("name", ["", ".x", "a..b", "a b", "os;", "../x"])
def test_what_names_no_package(tmp_path, name):
    with pytest.raises(InputError) as caught:
        identity(BaseSpec(model=f"package:{name}"), tmp_path, tmp_path)
    assert str(caught.value) == (
        f"base.model 'package:{name}' names no package; expected package:NAME"
    )


PACKAGED = """
import pathlib, sys
from koinize.errors import InputError, KoinizeError
from koinize.model.base import BaseSpec, identity
try:
    identity(BaseSpec(model="package:evil"), pathlib.Path(), pathlib.Path())
except InputError as error:
    sys.exit(str(error))
"""


def test_a_package_that_lies_beside_the_project(tmp_path):
    (tmp_path / "evil.py").write_text(HOSTILE.format(str(tmp_path / RAN)))
    program = [sys.executable, "-c", PACKAGED]  # which looks for modules in its own folder first
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == (
        "base.model the package 'evil' is not installed; pip install evil"
    )
    assert not (tmp_path / RAN).exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_says_odd_things_is_taken_for_plain(tmp_path, name):
    for text in (
        '{"normalizer": ' + "[" * 400 + "]" * 400 + "}",
        '{"pre_tokenizer": ' + '{"a":' * 5000,
        "[" * 100_000,
        '{"chat_template": null, "normalizer": {"type": ["Prepend"]}}',
        "9" * 10_000,
        "\xff",
    ):
        (tmp_path / name).write_text(text, encoding="latin-1")
        assert manner(tmp_path) == PLAIN
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert manner(tmp_path) == PLAIN


@pytest.mark.parametrize(
    "words",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "two"},
        {"hidden_size": 0},
        {"num_attention_heads": 0},
        {"hidden_size": -8},
        {"model_type": "no such type"},
        {"model_type": ["llama"]},
        {"vocab_size": 10**12},
    ],
    ids=str,
)
def test_a_configuration_that_means_nothing(tmp_path, words):
    write_tiny_base(tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))
    with pytest.raises(KoinizeError):
        load_model(tmp_path / "base", "float32", "cpu")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipes_and_broken_links_in_the_folder_of_a_model(tmp_path, name):
    write_tiny_base(tmp_path / "base")
    path = tmp_path / "base" / name
    for make in (os.mkfifo, lambda one: one.symlink_to(tmp_path / "gone")):
        path.unlink()
        make(path)
        with pytest.raises(InputError, match="base/"):
            identity(BaseSpec(model="base"), tmp_path, tmp_path / "digests")
