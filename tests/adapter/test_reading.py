"""Reading and writing PEFT folders: what is accepted, what is refused and in which words."""

import hashlib
import json
import math
import struct
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from koinize.adapter import (
    AdapterWriter,
    Factors,
    ModuleShape,
    open_adapter,
    read_header,
)
from koinize.errors import InputError

Q, V = "model.layers.0.q_proj", "model.layers.1.v_proj"
A_Q = f"base_model.model.{Q}.lora_A.weight"
B_Q = f"base_model.model.{Q}.lora_B.weight"


def factors(seed=0, rank=2):
    random = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(6, rank, generator=random), torch.randn(rank, 4, generator=random))
        for name in (Q, V)
    }


def save(folder, modules=None, *, extra=None, dtype=torch.float32, **config):
    """A folder as PEFT writes it."""
    folder.mkdir()
    tensors = dict(extra or {})
    for name, (B, A) in (modules or factors()).items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = A.to(dtype)
        tensors[f"base_model.model.{name}.lora_B.weight"] = B.to(dtype)
    save_file(tensors, folder / "adapter_model.safetensors")
    stated = {
        "peft_type": "LORA",
        "base_model_name_or_path": "example/base",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps({**stated, **config}))
    return folder


def refusal(folder):
    with pytest.raises(InputError) as caught:
        read_header(folder)
    return str(caught.value).replace(str(folder), "FOLDER")


def test_header_reads_shapes_and_scales(tmp_path):
    header = read_header(save(tmp_path / "en"))
    assert header.base_model == "example/base"
    assert list(header.modules) == [Q, V]
    module = header.modules[Q]
    assert (module.rank, module.inputs, module.outputs, module.scale) == (2, 4, 6, 2.0)


def test_rslora_divides_by_the_root_of_the_rank(tmp_path):
    header = read_header(save(tmp_path / "en", use_rslora=True))
    assert header.modules[Q].scale == 4 / math.sqrt(2)


def test_patterns_are_matched_as_peft_does(tmp_path):
    modules = {Q: factors(rank=3)[Q], V: factors()[V]}
    config = {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {r"model\.layers\.1\..*": 6}}
    header = read_header(save(tmp_path / "en", modules, **config))
    assert (header.modules[Q].rank, header.modules[Q].scale) == (3, 4 / 3)
    assert (header.modules[V].rank, header.modules[V].scale) == (2, 3.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_factors_are_float32_with_the_scale_folded_in(tmp_path, dtype):
    modules = factors()
    with open_adapter(save(tmp_path / "en", modules, dtype=dtype)) as adapter:
        read = adapter.factors(Q)
    B, A = (factor.to(dtype).float() for factor in modules[Q])
    assert torch.equal(read.B, B * 2.0)
    assert torch.equal(read.A, A)


def test_an_unaligned_file_is_read(tmp_path):
    folder = save(tmp_path / "en")
    path = folder / "adapter_model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length] + b" "  # one more byte moves every tensor off its alignment
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    with open_adapter(folder) as adapter:
        assert torch.equal(adapter.factors(V).A, factors()[V][1])


WITHOUT = "train the adapter again without it"
REFUSED_CONFIGS = [
    (
        {"peft_type": "IA3"},
        "peft_type is 'IA3'; expected 'LORA'; train a LoRA adapter in its place",
    ),
    (
        {"use_dora": True},
        "use_dora is set: DoRA rescales the base weights' columns, which no sum of B A can "
        "express; train the adapter again without it",
    ),
    ({"lora_bias": True}, f"lora_bias is set: a bias on B is no part of B A; {WITHOUT}"),
    (
        {"bias": "all"},
        "bias is 'all': biases were trained beside the LoRA factors; expected 'none'; train the "
        "adapter again with it",
    ),
    ({"use_rslora": "yes"}, "use_rslora is 'yes'; expected true or false"),
    ({"fan_in_fan_out": 1}, "fan_in_fan_out is 1; expected true or false"),
    (
        {"modules_to_save": ["lm_head"]},
        "modules_to_save names 'lm_head', and adapter_model.safetensors has no tensor of it; save "
        "the adapter again",
    ),
    (
        {"modules_to_save": "lm_head"},
        "modules_to_save is 'lm_head'; expected a list of module names",
    ),
    (
        {"target_parameters": ["experts"]},
        "target_parameters names 'experts', and no tensor is of it; save the adapter again",
    ),
    (
        {"target_parameters": [f"experts.{n}" for n in range(101)]},
        "target_parameters names 101 parameters; expected at most 100",
    ),
    (
        {"target_parameters": "experts"},
        "target_parameters is 'experts'; expected a list of parameters' names",
    ),
    (
        {"trainable_token_indices": [1]},
        "trainable_token_indices is set: rows of the embedding were trained beside the LoRA "
        f"factors; {WITHOUT}",
    ),
    (
        {"use_next_idea": True},
        "unknown key 'use_next_idea' is set and may change what the adapter means; remove it if it "
        "only mattered in training",
    ),
    ({"r": 0}, "r is 0; expected a positive number"),
    ({"lora_alpha": "x"}, "lora_alpha is 'x'; expected a positive number"),
    (
        {"r": 8},
        f"says rank 8 for module '{Q}', its tensors have 2; the two files do not belong together; "
        "save the adapter again",
    ),
    ({"rank_pattern": {"(": 2}}, "rank_pattern has '(', which is no regular expression"),
    ({"rank_pattern": [1]}, "rank_pattern is not a JSON object"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED_CONFIGS)
def test_refused_configs(tmp_path, config, message):
    folder = save(tmp_path / "en", **config)
    assert refusal(folder) == f"FOLDER/adapter_config.json {message}"


REFUSED_TENSORS = [
    (
        "base_model.model.m.lora_magnitude_vector.weight",
        "belongs to DoRA: DoRA rescales the base weights' columns, which no sum of B A can "
        "express; train the adapter again without it",
    ),
    (
        "base_model.model.embed_tokens.lora_embedding_A",
        f"is LoRA on an embedding, which is not supported; {WITHOUT}",
    ),
    ("base_model.model.m.lora_B.bias", f"is a bias, which is no part of B A; {WITHOUT}"),
    (
        "base_model.model.lm_head.weight",
        "is a whole module, not a LoRA factor: whole modules were trained beside the LoRA factors; "
        "name the module in modules_to_save if it was trained, or save without it",
    ),
    (
        "base_model.model.lm_head.base_layer.weight",
        "is the base model's own, which PEFT saves beside an adapted embedding or lm_head; "
        "save the adapter again with save_embedding_layers=False",
    ),
    (
        "base_model.model.embed_tokens.base_layer.weight",
        "is the base model's own, which PEFT saves beside an adapted embedding or lm_head; "
        "save the adapter again with save_embedding_layers=False",
    ),
    ("base_model.model.m.lora_C.weight", "has a name that PEFT does not give to a LoRA factor"),
]


@pytest.mark.parametrize(("name", "message"), REFUSED_TENSORS)
def test_refused_tensors(tmp_path, name, message):
    folder = save(tmp_path / "en", extra={name: torch.ones(2, 2)})
    assert refusal(folder) == f"FOLDER/adapter_model.safetensors tensor '{name}' {message}"


def test_whole_modules_are_read_with_their_names(tmp_path):
    extra = {
        "base_model.model.lm_head.weight": torch.ones(3, 2, dtype=torch.bfloat16),
        "base_model.model.model.score.out.bias": torch.ones(3),
    }
    folder = save(tmp_path / "en", extra=extra, modules_to_save=["score", "lm_head"])
    header = read_header(folder)
    assert header.modules_to_save == ("lm_head", "score")
    assert {name: (one.dtype, one.shape) for name, one in header.saved.items()} == {
        "base_model.model.lm_head.weight": ("BF16", (3, 2)),
        "base_model.model.model.score.out.bias": ("F32", (3,)),
    }
    assert list(header.modules) == [Q, V]
    with open_adapter(folder) as adapter:
        pieces = b"".join(adapter.saved("base_model.model.lm_head.weight"))
    assert pieces == 6 * b"\x80\x3f"  # 1 in bfloat16
    other = save(tmp_path / "fr", extra=extra, modules_to_save=["lm_head"])
    assert refusal(other) == (
        "FOLDER/adapter_model.safetensors tensor 'base_model.model.model.score.out.bias' is a bias,"
        " which is no part of B A; train the adapter again without it"
    )
    whole = {"base_model.model.lm_head.weight": torch.ones(3, 2, dtype=torch.int8)}
    other = save(tmp_path / "ja", extra=whole, modules_to_save=["lm_head"])
    assert refusal(other) == (
        "FOLDER/adapter_model.safetensors tensor 'base_model.model.lm_head.weight' is I8; expected "
        "one of F32, BF16, F16"
    )


def test_other_refusals(tmp_path):
    assert refusal(tmp_path / "no") == "FOLDER does not exist; expected a PEFT adapter folder"
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file") == "FOLDER is no folder; expected a PEFT adapter folder"
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == (
        "FOLDER there is no adapter_config.json; expected a PEFT adapter folder"
    )
    folder = save(tmp_path / "half", {Q: (torch.ones(6, 2, 1), torch.ones(2, 4))})
    assert refusal(folder) == (
        f"FOLDER/adapter_model.safetensors module '{Q}' has A [2, 4] and B [6, 2, 1]; expected A "
        "[rank, inputs] and B [outputs, rank] of a linear layer"
    )
    folder = save(tmp_path / "lonely", extra={"base_model.model.m.lora_A.weight": torch.ones(2, 2)})
    assert refusal(folder) == "FOLDER/adapter_model.safetensors module 'm' has no lora_B"
    folder = save(tmp_path / "wide", dtype=torch.float64)
    assert refusal(folder) == (
        f"FOLDER/adapter_model.safetensors module '{Q}' has lora_A in F64; expected one of F32, "
        "BF16, F16"
    )
    (folder / "adapter_model.safetensors").unlink()
    assert refusal(folder) == (
        "FOLDER there is no adapter_model.safetensors; expected a PEFT adapter folder; give the "
        "folder that holds the adapter itself"
    )
    (folder / "adapter_model.bin").write_bytes(b"")
    assert refusal(folder) == (
        "FOLDER adapter_model.bin is a pickle, which can run any program when it is read; expected "
        "adapter_model.safetensors; load it in PEFT where you trust it and save_pretrained() it "
        "again"
    )
    (folder / "adapter_config.json").write_text("{")
    assert refusal(folder) == "FOLDER/adapter_config.json is not JSON (JSONDecodeError)"
    (folder / "adapter_config.json").write_text("[]")
    assert refusal(folder) == "FOLDER/adapter_config.json is not a JSON object"


def rewrite(folder, change):
    """Replace the header of the weights by `change(header)`."""
    path = folder / "adapter_model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = change(json.loads(data[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def moved(header, begin=0, end=0):
    entry = header[A_Q]
    first, last = entry["data_offsets"]
    return {**header, A_Q: {**entry, "data_offsets": [first + begin, last + end]}}


LIES = [
    (lambda h: b"{", "its header is not JSON (JSONDecodeError)"),
    (lambda h: b"[" * 100_000, "its header is not JSON (RecursionError)"),
    (lambda h: b"\xff\xff", "its header is not JSON (UnicodeDecodeError)"),
    (lambda h: b'{"a":1,"a":2}', "its header is not JSON (ValueError)"),
    (lambda h: [1], "its header is not a JSON object"),
    (
        lambda h: {**h, A_Q: {"dtype": "F32", "shape": [2, 4]}},
        f"tensor '{A_Q}' lacks dtype, shape or data_offsets",
    ),
    (
        lambda h: {**h, A_Q: {**h[A_Q], "shape": [-2, -4]}},
        f"tensor '{A_Q}' has a shape or offset that is no count",
    ),
    (
        lambda h: {**h, A_Q: {**h[A_Q], "shape": [2, 5]}},
        f"tensor '{A_Q}' does not fill the bytes that it claims",
    ),
    (lambda h: moved(h, 4, 4), "its tensors overlap or leave gaps"),
]


@pytest.mark.parametrize(("lie", "reason"), LIES)
def test_a_header_that_lies(tmp_path, lie, reason):
    folder = save(tmp_path / "en")
    rewrite(folder, lie)
    assert refusal(folder) == (
        f"FOLDER/adapter_model.safetensors is not a usable safetensors file: {reason}; copy or "
        "save the adapter again"
    )


def test_a_file_of_the_wrong_length(tmp_path):
    folder = save(tmp_path / "en")
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for data, reason in [
        (whole[:-3], f"it is truncated: {len(whole) - 3} bytes where its header says {len(whole)}"),
        (
            whole + b"x",
            f"it is too long: {len(whole) + 1} bytes where its header says {len(whole)}",
        ),
        (whole[:5], "it has 5 bytes, less than a header"),
        (
            whole[:20],
            f"its header claims {struct.unpack('<Q', whole[:8])[0]} bytes of a file of 20",
        ),
    ]:
        path.write_bytes(data)
        assert refusal(folder) == (
            f"FOLDER/adapter_model.safetensors is not a usable safetensors file: {reason}; copy or "
            "save the adapter again"
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(tmp_path, value):
    modules = factors()
    modules[V][0][3, 1] = value
    folder = save(tmp_path / "en", modules)
    with open_adapter(folder) as adapter, pytest.raises(InputError) as caught:
        adapter.factors(V)
    assert str(caught.value) == (
        f"{folder}/adapter_model.safetensors tensor '{V}.lora_B' holds NaN or infinity; its "
        "training diverged or the file is damaged"
    )


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_a_residual_initialisation_is_told(tmp_path, init):
    folder = save(tmp_path / "en", init_lora_weights=init)
    assert read_header(folder).warnings == (
        f"saved with init_lora_weights '{init}': it and its merge belong on the "
        "residual base model that this initialisation made; to merge it for the plain base, save "
        "it with path_initial_model_for_weight_conversion",
    )


@pytest.mark.parametrize("init", [True, "gaussian", "eva"])
def test_other_initialisations_are_ordinary(tmp_path, init):
    assert read_header(save(tmp_path / "en", init_lora_weights=init)).warnings == ()


def shapes(rank):
    return [ModuleShape(name, outputs=6, inputs=4, rank=rank) for name in (V, Q)]


def card(files):
    return "".join(f"{name} {identity}\n" for name, identity in files.items())


def write(out, modules, like, *, announced=3, dtype="float32"):
    with AdapterWriter(out, shapes(announced), dtype=dtype) as writer:
        for name in sorted(modules):
            B, A = modules[name]
            writer.write(name, Factors(B=B, A=A))
        writer.finish([like], card=card)
    return out


def test_a_written_adapter_is_read_back(tmp_path):
    like = read_header(save(tmp_path / "like", revision="abc", fan_in_fan_out=True))
    modules = {Q: factors(1, rank=3)[Q], V: factors(2, rank=2)[V]}
    out = write(tmp_path / "out", modules, like)
    header = read_header(out)
    assert (header.base_model, header.revision) == ("example/base", "abc")
    assert header.fan_in_fan_out
    assert {name: (m.rank, m.scale) for name, m in header.modules.items()} == {
        Q: (3, 1.0),
        V: (2, 1.0),
    }
    with open_adapter(out) as adapter:
        assert torch.equal(adapter.factors(Q).B, modules[Q][0])
    assert torch.equal(load_file(out / "adapter_model.safetensors")[B_Q], modules[Q][0])
    files = ("adapter_config.json", "adapter_model.safetensors")
    assert (out / "README.md").read_text() == card(
        {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in files}
    )
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["rank_pattern"] == config["alpha_pattern"] == {V: 2}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_dtype_of_the_output(tmp_path, dtype):
    like = read_header(save(tmp_path / "like"))
    modules = factors()
    out = write(tmp_path / "out", modules, like, dtype=dtype)
    written = load_file(out / "adapter_model.safetensors")[A_Q]
    assert written.dtype == getattr(torch, dtype)
    assert torch.equal(written, modules[Q][1].to(written.dtype))


def test_two_writes_are_the_same_bytes(tmp_path):
    like = read_header(save(tmp_path / "like"))
    one, two = (write(tmp_path / name, factors(), like) for name in ("one", "two"))
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_an_existing_folder_is_never_written_over(tmp_path):
    like = read_header(save(tmp_path / "like"))
    with pytest.raises(InputError) as caught:
        write(tmp_path / "like", factors(), like)
    assert str(caught.value) == (
        f"{tmp_path}/like exists already; remove it or choose another name"
    )


def test_a_failure_leaves_nothing_behind(tmp_path):
    before = set(tmp_path.iterdir())
    modules = factors()
    modules[V] = (modules[V][0], None)  # fails at the second module
    with pytest.raises(AttributeError):
        write(tmp_path / "out", modules, like=None)
    assert set(tmp_path.iterdir()) == before


def test_a_draft_of_a_killed_process_is_removed_by_the_next(tmp_path):
    """Ours lives, so it stays; the one that nobody has locked goes, and so do no other names'."""
    abandoned, others = tmp_path / ".out.0a1b.partial", tmp_path / ".outer.0a1b.partial"
    for folder in (abandoned, others):
        folder.mkdir()
        (folder / "adapter_model.safetensors").touch()
    like = read_header(save(tmp_path / "like"))
    with AdapterWriter(tmp_path / "out", shapes(3)) as first:
        assert not abandoned.exists()
        assert others.exists()
        write(tmp_path / "out2", factors(), like)
        with pytest.raises(RuntimeError), AdapterWriter(tmp_path / "out", shapes(3)):
            raise RuntimeError  # a second writer of the same name leaves the first one's draft
        modules = factors(rank=3)
        for name in (Q, V):
            first.write(name, Factors(*modules[name]))
        first.finish([like])
    assert list(read_header(tmp_path / "out").modules) == [Q, V]


def test_a_draft_that_nobody_entered_goes_with_its_writer(tmp_path):
    before = set(tmp_path.iterdir())
    writer = AdapterWriter(tmp_path / "out", shapes(3))
    assert set(tmp_path.iterdir()) != before
    del writer
    assert set(tmp_path.iterdir()) == before


def test_float16_overflow_is_refused(tmp_path):
    like = read_header(save(tmp_path / "like"))
    modules = factors()
    modules[Q][1][0, 0] = 1e6
    with pytest.raises(InputError) as caught:
        write(tmp_path / "out", modules, like, dtype="float16")
    assert str(caught.value) == (
        f"module '{Q}' does not fit float16; expected magnitudes below 65504; use bfloat16 or "
        "float32"
    )


def test_headers_need_no_torch(tmp_path):
    import subprocess

    folder = save(tmp_path / "en")
    program = (
        "import sys; from koinize.adapter import read_header; "
        f"read_header({str(folder)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_numpy_agrees_about_the_bytes(tmp_path):
    """The file is what the format says: offsets into raw little-endian rows."""
    like = read_header(save(tmp_path / "like"))
    out = write(tmp_path / "out", factors(), like)
    data = (out / "adapter_model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8 : 8 + length])[A_Q]
    first, last = (8 + length + offset for offset in entry["data_offsets"])
    values = np.frombuffer(data[first:last], "<f4").reshape(entry["shape"])
    assert (values == factors()[Q][1].numpy()).all()
