"""Real servers for the slow tests: llama.cpp and vLLM, each in an environment of its own.

A tiny llama and its adapter are written as GGUF by hand here, by llama.cpp's own rules, with
llama.cpp's scale, which is alpha / r whatever the adapter says of rsLoRA.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

HEADS, KEY_HEADS, LAYERS = 2, 1, 2
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LLAMA_PROGRAM = """
import sys, time
import xllamacpp as x
model, adapter, port = sys.argv[1:]
params = x.CommonParams()
params.model.path = model
params.port = int(port)
params.n_ctx, params.n_parallel, params.n_gpu_layers = 512, 1, 0
params.warmup = False
params.cpuparams.n_threads = 1
if adapter:
    info = x.CommonAdapterLoraInfo(adapter, 1.0)
    params.lora_adapters = [info]
server = x.Server(params)
print(server.listening_address, flush=True)
time.sleep(3600)
"""


def gguf_name(name):
    """llama.cpp's name of a module."""
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}"


def turned(name, rows):
    """The rows of q and k in the order that llama.cpp rotates them in."""
    heads = {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(name.rpartition(".")[2])
    if heads is None:
        return rows
    parts = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return parts.swapaxes(1, 2).reshape(rows.shape)


def write_gguf(base, path, template=None):
    """The tiny llama of `write_base` in llama.cpp's format, float32."""
    import gguf

    config = json.loads((base / "config.json").read_text())
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    tokenizer = AutoTokenizer.from_pretrained(str(base))
    tokens = tokenizer.convert_ids_to_tokens(list(range(config["vocab_size"])))
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if n in special else normal for n in range(len(tokens))])
    writer.add_token_merges(["~ |"])  # of no token: each byte stays one
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    if template:
        writer.add_chat_template(template)
    weights = load_file(base / "model.safetensors")
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    for key, values in weights.items():
        name = key.removesuffix(".weight")
        values = turned(name, values) if values.ndim == 2 else values
        writer.add_tensor(f"{gguf_name(name)}.weight", np.ascontiguousarray(values, np.float32))
    _close(writer)
    return path


def write_adapter_gguf(adapter, path, *, minds_rslora=True):
    """The adapter in llama.cpp's format; without rsLoRA's scale as its own converter writes it."""
    import gguf

    config = json.loads((adapter / "adapter_config.json").read_text())
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    root = math.sqrt(config["r"]) if config.get("use_rslora") and minds_rslora else 1.0
    writer.add_float32("adapter.lora.alpha", config["lora_alpha"] * root)
    for key, values in load_file(adapter / "adapter_model.safetensors").items():
        name, side = key.removeprefix("base_model.model.").removesuffix(".weight").split(".lora_")
        rows = turned(name, values) if side == "B" else values
        full = f"{gguf_name(name)}.weight.lora_{side.lower()}"
        writer.add_tensor(full, np.ascontiguousarray(rows, np.float32))
    _close(writer)
    return path


def _close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def environment(folder, *packages):
    """A Python of its own with these packages; skips where they cannot be had."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--retries", "1", *packages]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{', '.join(packages)} took more than five minutes to install")
    if done.returncode:
        pytest.skip(f"{', '.join(packages)} cannot be installed: {done.stderr[-300:]}")
    return python


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def started(command, url, log, seconds, **environ):
    """A server's process while the block runs; fails with its log where it never answers."""
    with log.open("wb") as out:
        env = {**os.environ, **environ}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env)
        try:
            until = time.monotonic() + seconds
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"no server: {log.read_text(errors='replace')[-3000:]}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"{url}/models", timeout=5
        ):
            return True
    except OSError:
        return False


@contextmanager
def llama_cpp(python, model, adapter, log):
    """llama.cpp's server, which calls every model by whatever name it is asked for."""
    port = free_port()
    command = [python, "-c", LLAMA_PROGRAM, model, adapter or "", str(port)]
    with started(command, f"http://127.0.0.1:{port}/v1", log, 60) as url:
        yield url


VLLM_HERE = ["--host", "127.0.0.1", "--max-model-len", "512", "--enforce-eager"]


@contextmanager
def vllm(python, base, adapters, log, **environ):
    """vLLM for CPUs: the base as `base`, each adapter under its name."""
    modules = [f"{name}={folder}" for name, folder in adapters.items()]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", base]
    command += ["--dtype", "float32", "--enable-lora", "--max-lora-rank", "8", "--max-loras", "1"]
    with _vllm([*command, "--lora-modules", *modules], log, **environ) as url:
        yield url


@contextmanager
def vllm_script(python, script, log):
    """vLLM for CPUs, started by a script that `koinize export` wrote.

    The package's own program `vllm` looks for the version of another package than it came with, and
    ends; what `vllm serve` starts takes the same options.
    """
    program = log.parent / "bin" / "vllm"
    program.parent.mkdir()
    start = "-m vllm.entrypoints.openai.api_server --model"
    program.write_text(f'#!/bin/sh\nshift\nexec {shlex.quote(str(python))} {start} "$@"\n')
    program.chmod(0o755)
    with _vllm(["sh", script], log, PATH=f"{program.parent}:{os.environ['PATH']}") as url:
        yield url


@contextmanager
def _vllm(command, log, **environ):
    port = free_port()
    command = [*command, *VLLM_HERE, "--served-model-name", "base", "--port", str(port)]
    environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with started(command, f"http://127.0.0.1:{port}/v1", log, 240, **environ) as url:
        yield url
