"""Bad input on the command line: one message each, exit code 2, and never a trace of an output."""

import json
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from koinize import merge_adapters
from koinize.adapter import read_header
from koinize.cli import merge as commands
from koinize.errors import InputError, StepError
from koinize.merge.decompose import UnsolvedError
from tests.peft_folders import configured

Q, V = "model.layers.0.q_proj", "model.layers.1.v_proj"
SHAPES = {Q: (12, 10), V: (6, 14)}
A_Q = f"base_model.model.{Q}.lora_A.weight"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save(folder, seed, shapes=SHAPES, rank=3, **config):
    folder.mkdir()
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in shapes.items():
        for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            key = f"base_model.model.{name}.lora_{side}.weight"
            tensors[key] = torch.randn(shape, generator=random)
    save_file(tensors, folder / WEIGHTS)
    stated = {"peft_type": "LORA", "base_model_name_or_path": "example/base", "r": rank}
    stated |= {"lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}
    (folder / CONFIG).write_text(json.dumps({**stated, **config}))
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with good adapters de and en, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("de", "en")):
        save(tmp_path / name, seed)
    return tmp_path


def failure(arguments):
    """The message of a command that has to be refused."""
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    assert result.exception.exit_code == 2
    return str(result.exception)


def changed(folder, change):
    """Its weights as `change(bytes)`."""
    path = folder / WEIGHTS
    path.write_bytes(change(path.read_bytes()))


def rewritten(folder, change):
    """Its tensors as `change(tensors)`."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def header_changed(folder, change):
    def edit(data):
        length = struct.unpack("<Q", data[:8])[0]
        text = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    changed(folder, edit)


def with_value(value):
    def change(tensors):
        tensors[A_Q][1, 2] = value
        return tensors

    return change


def to_bin(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


BROKEN = "is not a usable safetensors file"
WITHOUT = "train the adapter again without it"
MEND = "copy or save the adapter again"
# What is done to adapter en, and what is said.
ADAPTERS = {
    "NaN": (
        lambda en: rewritten(en, with_value(torch.nan)),
        f"en/{WEIGHTS} tensor '{Q}.lora_A' holds NaN or infinity; its training diverged or the "
        "file is damaged",
    ),
    "infinity": (
        lambda en: rewritten(en, with_value(-torch.inf)),
        f"en/{WEIGHTS} tensor '{Q}.lora_A' holds NaN or infinity; its training diverged or the "
        "file is damaged",
    ),
    "an update beyond float32, of finite factors": (
        lambda en: rewritten(en, lambda t: {key: one * 0 + 1e20 for key, one in t.items()}),
        f"en/{WEIGHTS} the update of module '{Q}' may have entries of 6e+40; expected 1e+15 at "
        "most; its training diverged or the file is damaged",
    ),
    "the base's lm_head": (
        lambda en: rewritten(
            en, lambda t: {**t, "base_model.model.lm_head.base_layer.weight": torch.ones(2, 2)}
        ),
        f"en/{WEIGHTS} tensor 'base_model.model.lm_head.base_layer.weight' is the base model's "
        "own, which PEFT saves beside an adapted embedding or lm_head; save the adapter again with "
        "save_embedding_layers=False",
    ),
    "truncated": (
        lambda en: changed(en, lambda data: data[:-1]),
        f"en/{WEIGHTS} {BROKEN}: it is truncated: <size - 1> bytes where its header says "
        f"<size>; {MEND}",
    ),
    "overlong": (
        lambda en: changed(en, lambda data: data + b"\0\0"),
        f"en/{WEIGHTS} {BROKEN}: it is too long: <size + 2> bytes where its header says "
        f"<size>; {MEND}",
    ),
    "a bit flipped in the length of the header": (
        lambda en: changed(en, lambda data: data[:5] + b"\x40" + data[6:]),
        f"en/{WEIGHTS} {BROKEN}: its header claims <header + 2**46> bytes of a file of "
        f"<size>; {MEND}",
    ),
    "a bit flipped in the header": (
        lambda en: changed(en, lambda data: data[:8] + b"\x7a" + data[9:]),
        f"en/{WEIGHTS} {BROKEN}: its header is not JSON (JSONDecodeError); {MEND}",
    ),
    "a header that lies about a shape": (
        lambda en: header_changed(en, lambda h: {**h, A_Q: {**h[A_Q], "shape": [3, 11]}}),
        f"en/{WEIGHTS} {BROKEN}: tensor '{A_Q}' does not fill the bytes that it claims; {MEND}",
    ),
    "a header that lies about offsets": (
        lambda en: header_changed(en, lambda h: {**h, A_Q: {**h[A_Q], "data_offsets": [8, 128]}}),
        f"en/{WEIGHTS} {BROKEN}: its tensors overlap or leave gaps; {MEND}",
    ),
    "a pickle": (
        to_bin,
        "en adapter_model.bin is a pickle, which can run any program when it is read; expected "
        f"{WEIGHTS}; load it in PEFT where you trust it and save_pretrained() it again",
    ),
    "another base": (
        lambda en: configured(en, base_model_name_or_path="other/base"),
        "en 'en' adapts other/base, 'de' adapts example/base; expected adapters of one base model; "
        f"if the two are the same, make both {CONFIG} say so",
    ),
    "another revision": (
        lambda en: (
            configured(en.parent / "de", revision="v1"),
            configured(en, revision="v2"),
        ),
        "en 'en' adapts example/base at v2, 'de' adapts example/base at v1; expected adapters of "
        f"one base model; if the two are the same, make both {CONFIG} say so",
    ),
    "another shape": (
        lambda en: rewritten(en, lambda t: {**t, A_Q: torch.ones(3, 9)}),
        f"en module '{Q}' is 12 x 9 in 'en' and 12 x 10 in 'de'; expected adapters of one base "
        "model",
    ),
    "factors that do not fit": (
        lambda en: rewritten(en, lambda t: {**t, A_Q: torch.ones(2, 10)}),
        f"en/{WEIGHTS} module '{Q}' has A [2, 10] and B [12, 3]; expected A [rank, inputs] and B "
        "[outputs, rank] of a linear layer",
    ),
    "rank 0": (
        lambda en: rewritten(
            en, lambda t: {**t, A_Q: torch.ones(0, 10), A_Q.replace("_A", "_B"): torch.ones(12, 0)}
        ),
        f"en/{WEIGHTS} module '{Q}' has A [0, 10] and B [12, 0]; expected A [rank, inputs] and B "
        "[outputs, rank] of a linear layer",
    ),
    "half a module": (
        lambda en: rewritten(en, lambda t: {key: one for key, one in t.items() if key != A_Q}),
        f"en/{WEIGHTS} module '{Q}' has no lora_A",
    ),
    "no module": (
        lambda en: rewritten(en, lambda _: {}),
        f"en/{WEIGHTS} holds no LoRA factors",
    ),
    "integers": (
        lambda en: rewritten(en, lambda t: {**t, A_Q: torch.ones(3, 10, dtype=torch.int32)}),
        f"en/{WEIGHTS} module '{Q}' has lora_A in I32; expected one of F32, BF16, F16",
    ),
    "DoRA": (
        lambda en: configured(en, use_dora=True),
        f"en/{CONFIG} use_dora is set: DoRA rescales the base weights' columns, which no sum of "
        f"B A can express; {WITHOUT}",
    ),
    "a bias on B": (
        lambda en: configured(en, lora_bias=True),
        f"en/{CONFIG} lora_bias is set: a bias on B is no part of B A; {WITHOUT}",
    ),
    "biases": (
        lambda en: configured(en, bias="lora_only"),
        f"en/{CONFIG} bias is 'lora_only': biases were trained beside the LoRA factors; expected "
        "'none'; train the adapter again with it",
    ),
    "bare parameters": (
        lambda en: configured(en, target_parameters=["experts.down"]),
        f"en/{CONFIG} target_parameters names 'experts.down', and no tensor is of it; save the "
        "adapter again",
    ),
    "an adapted embedding": (
        lambda en: rewritten(
            en, lambda t: {**t, "base_model.model.embed.lora_embedding_A": torch.ones(3, 5)}
        ),
        f"en/{WEIGHTS} tensor 'base_model.model.embed.lora_embedding_A' is LoRA on an embedding, "
        f"which is not supported; {WITHOUT}",
    ),
    "a whole module in one adapter": (
        lambda en: (
            rewritten(en, lambda t: {**t, "base_model.model.lm_head.weight": torch.ones(2, 2)}),
            configured(en, modules_to_save=["lm_head"]),
        ),
        "de 'en' carries the whole module's tensor 'base_model.model.lm_head.weight', 'de' lacks "
        "it; expected modules_to_save that are equal, byte for byte, in all adapters; merge "
        "adapters that were trained with the same modules_to_save",
    ),
    "another method": (
        lambda en: configured(en, peft_type="IA3"),
        f"en/{CONFIG} peft_type is 'IA3'; expected 'LORA'; train a LoRA adapter in its place",
    ),
    "a rank that the tensors do not have": (
        lambda en: configured(en, r=4),
        f"en/{CONFIG} says rank 4 for module '{Q}', its tensors have 3; the two files do not "
        "belong together; save the adapter again",
    ),
    "no folder": (
        lambda en: en.rename(en.parent / "moved"),
        "en does not exist; expected a PEFT adapter folder",
    ),
    "no weights": (
        lambda en: (en / WEIGHTS).unlink(),
        f"en there is no {WEIGHTS}; expected a PEFT adapter folder; give the folder that holds the "
        "adapter itself",
    ),
}

RECIPES = (
    "breadcrumbs, core-dare-ties, core-ties, dare-linear, dare-ties, della, iso, knots-dare-ties, "
    "knots-ties, magnitude-prune, mean, sce, sum, ties, tsv"
)
# Options after `koinize merge de=de en=en`, and what is said.
OPTIONS = {
    "density 0": ("--density 0", "density is 0.0; expected a number greater than 0"),
    "density above 1": (
        "--density 1.5",
        "density is 1.5; expected a number less than or equal to 1",
    ),
    "weights that sum to 0": (
        "--recipe mean --weight de=1 --weight en=-1",
        "the weights sum to 0, and a mean divides by their sum; use recipe 'sum' for differences",
    ),
    "no weight at all": (
        "--weight de=0 --weight en=0",
        "all weights are 0; give at least one language a weight",
    ),
    "a weight that is no number": (
        "--weight de=much",
        "weights['de'] is 'much'; expected a valid number",
    ),
    "a weight that is not finite": (
        "--weight de=nan",
        "weights['de'] is nan; expected a finite number",
    ),
    "a weight beyond float32": (
        "--weight de=1e39",
        "weights['de'] is 1e+39; expected a magnitude of 1e+15 at most",
    ),
    "a scale beyond float32": (
        "--scale -1e300",
        "scale is -1e+300; expected a magnitude from 1e-15 to 1e+15",
    ),
    "a scale below float32": (
        "--scale 1e-300",
        "scale is 1e-300; expected a magnitude from 1e-15 to 1e+15",
    ),
    "an override of a scale beyond float32": (
        "--set q_proj:scale=1e39",
        "overrides['q_proj']: scale is 1e+39; expected a magnitude from 1e-15 to 1e+15",
    ),
    "an override given twice": (
        "--set q_proj:density=.3 --set q_proj:density=.5",
        "'q_proj:density' is given twice; expected each once, as PATTERN:OPTION=VALUE",
    ),
    "an override without an option": (
        "--set q_proj:=3",
        "'q_proj:=3' cannot be read; expected PATTERN:OPTION=VALUE",
    ),
    "an override without a pattern": (
        "--set density=3",
        "'density=3' cannot be read; expected PATTERN:OPTION=VALUE",
    ),
    "a weight of nobody": (
        "--weight dd=1",
        "there is a weight for 'dd' but no adapter; choose one of: de, en",
    ),
    "a weight given twice": (
        "--weight de=1 --weight de=2",
        "'de' is given twice; expected each once, as LANGUAGE=NUMBER",
    ),
    "a language given twice": (
        "de=en",
        "'de' is given twice; expected each once, as LANGUAGE=FOLDER",
    ),
    "no language": ("en", "'en' cannot be read; expected LANGUAGE=FOLDER"),
    "a scale of 0": (
        "--scale 0",
        "scale 0.0 would leave nothing; give a finite number other than 0",
    ),
    "rank 0": ("--rank 0", "rank 0 is not 'full', a number from 1, or a share between 0 and 1"),
    "a rank between": (
        "--rank 1.5",
        "rank 1.5 is not 'full', a number from 1, or a share between 0 and 1",
    ),
    "an unknown recipe": (
        "--recipe knot-ties",
        "unknown recipe 'knot-ties'; did you mean 'knots-ties'?",
    ),
    "no such recipe": ("--recipe x", f"unknown recipe 'x'; choose one of: {RECIPES}"),
    "an unknown space": (
        "--recipe ties --space hull",
        "space is 'hull'; expected 'dense', 'knots', 'core' or 'factor'",
    ),
    "an unknown dialect": (
        "--dialect welsh",
        "dialect is 'welsh'; expected 'koinize', 'peft', 'mergekit' or 'knots'",
    ),
    "a recipe that the dialect has not": (
        "--dialect peft --recipe mean",
        "dialect 'peft' has no recipe 'mean'; it has dare-linear, dare-ties, magnitude-prune, sum, "
        "ties",
    ),
    "an unknown dtype": (
        "--dtype int8",
        "dtype is 'int8'; expected 'auto', 'float32', 'bfloat16' or 'float16'",
    ),
    "an unknown sign": ("--sign heads", "sign is 'heads'; expected 'total' or 'frequency'"),
    "an unknown normalize": (
        "--normalize sum",
        "normalize is 'sum'; expected 'weights', 'count' or 'none'",
    ),
    "an unknown scope": ("--scope layer", "scope is 'layer'; expected 'module' or 'adapter'"),
    "a negative seed": (
        "--recipe dare-ties --seed -1",
        "seed is -1; expected a number greater than or equal to 0",
    ),
    "an option of another recipe": (
        "--recipe mean --density 0.5",
        "recipe 'mean' does not use 'density'; it uses dialect, dtype, groups, overrides, rank, "
        "scale, weights",
    ),
    "an epsilon that leaves (0, 1)": (
        "--recipe della --density 0.9 --epsilon 0.2",
        "density 0.9 -+ epsilon 0.2 leaves (0, 1); choose a smaller epsilon",
    ),
    "an override of a density above 1": (
        "--set q_proj:density=2",
        "overrides['q_proj']: density is 2; expected a number less than or equal to 1",
    ),
    "an override of an unknown option": (
        "--set q_proj:densty=0.5",
        "overrides['q_proj']: 'densty' cannot differ from module to module; did you mean "
        "'density'?",
    ),
    "an override of no module": (
        "--set k_proj:density=0.5",
        f"the override 'k_proj' matches no module; expected a glob over names such as '{Q}'",
    ),
    "an unreadable memory limit": (
        "--max-memory -1GB",
        "max-memory '-1GB' cannot be read; expected bytes, or a number with a unit such as 1.5GB "
        "or 512MiB",
    ),
    "an unknown device": (
        "--device tpu",
        "device 'tpu' is unknown; expected cpu, cuda, cuda:N or auto",
    ),
    "an output that exists": (
        "-o de",
        "FOLDER/de exists already; remove it or choose another name",
    ),
    "an output that is a file": (
        f"-o de/{CONFIG}",
        f"FOLDER/de/{CONFIG} exists already; remove it or choose another name",
    ),
}


@pytest.mark.parametrize("fault", ADAPTERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_an_adapter_that_cannot_be_merged(work, fault, threads):
    damage, message = ADAPTERS[fault]
    data = (work / "en" / WEIGHTS).read_bytes()
    size, header = len(data), struct.unpack("<Q", data[:8])[0]
    for place, number in (
        ("<size>", size),
        ("<size - 1>", size - 1),
        ("<size + 2>", size + 2),
        ("<header + 2**46>", header + 2**46),
    ):
        message = message.replace(place, str(number))
    damage(work / "en")
    before = sorted(work.rglob("*"))
    options = ["--threads", threads, "--recipe", "ties", "-o", "out"]
    assert failure(["merge", "de=de", "en=en", *options]) == message
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize("fault", OPTIONS)
def test_options_that_make_no_sense(work, fault):
    given, message = OPTIONS[fault]
    before = sorted(work.rglob("*"))
    out = [] if "-o" in given else ["-o", "out"]
    said = failure(["merge", "de=de", "en=en", *out, *given.split()])
    assert said == message.replace("FOLDER/", "")
    assert sorted(work.rglob("*")) == before


MEAN = {"recipe": "mean"}
LOCAL = {
    "a cancelling mean": (
        {**MEAN, "overrides": {"v_proj": {"weights": {"de": 1, "en": -1}}}},
        f"module '{V}': the weights sum to 0, and a mean divides by their sum; use recipe 'sum' "
        "for differences",
    ),
    "nothing": (
        {"recipe": "ties", "overrides": {"*": {"weights": {"de": 0, "en": 0}}}},
        f"module '{Q}': all weights are 0; give at least one language a weight",
    ),
    "nothing, with the weight of elsewhere": (
        {**MEAN, "weights": {"de": 0}, "overrides": {"v_proj": {"weights": {"en": 0}}}},
        f"module '{V}': all weights are 0; give at least one language a weight",
    ),
    "nobody": (
        {**MEAN, "overrides": {"v_proj": {"weights": {"dd": 2}}}},
        "overrides['v_proj']: there is a weight for 'dd' but no adapter; choose one of: de, en",
    ),
    "no number": (
        {**MEAN, "overrides": {"v_proj": {"weights": {"de": "much"}}}},
        "overrides['v_proj']: weights['de'] is 'much'; expected a valid number",
    ),
    "too much": (
        {**MEAN, "overrides": {"v_proj": {"weights": {"de": 1e39}}}},
        "overrides['v_proj']: weights['de'] is 1e+39; expected a magnitude of 1e+15 at most",
    ),
    "no weights": (
        {**MEAN, "overrides": {"v_proj": {"weights": 3}}},
        "overrides['v_proj']: weights is 3; expected a valid dictionary",
    ),
}


@pytest.mark.parametrize("fault", LOCAL)
def test_weights_of_some_modules_that_make_no_sense(work, fault):
    options, message = LOCAL[fault]
    before = sorted(work.rglob("*"))
    with pytest.raises(InputError) as caught:
        merge_adapters({"de": "de", "en": "en"}, out="out", **options)
    assert str(caught.value) == message
    assert sorted(work.rglob("*")) == before


def test_small_weights_do_not_sum_to_0(work):
    """Only their ratio counts in a mean."""
    inputs = {"de": "de", "en": "en"}
    small = merge_adapters(inputs, **MEAN, weights=dict.fromkeys(inputs, 2.0**-40), out="small")
    plain = merge_adapters(inputs, **MEAN, out="plain")
    assert (small.out / WEIGHTS).read_bytes() == (plain.out / WEIGHTS).read_bytes()


OVERFLOWS = {
    "a sum": {"recipe": "sum"},
    "a sum of lower rank": {"recipe": "sum", "rank": 2},  # a decomposition of infinities
    "an election": {"recipe": "ties", "density": 0.5},
    "an election in a small space": {"recipe": "core-ties", "rank": 0.9},
    "a sum in bfloat16": {"recipe": "sum", "dtype": "bfloat16"},
}


@pytest.mark.parametrize("kind", OVERFLOWS)
def test_a_merge_that_overflows_writes_nothing(work, kind):
    for language in ("de", "en"):
        rewritten(work / language, lambda t: {key: one * 1e6 for key, one in t.items()})
    before = sorted(work.rglob("*"))
    factors = {"weights": {"de": 1e15, "en": 1e14}, "scale": 1e15}
    with pytest.raises(InputError) as caught:
        merge_adapters({"de": "de", "en": "en"}, out="new/deep/out", **factors, **OVERFLOWS[kind])
    said, _, size = str(caught.value).rpartition("whose entries may be ")
    assert said == (
        f"the merge of module '{Q}' is not finite, or may have entries beyond 1e+15; give smaller "
        "weights and a smaller scale, or leave out 'de', "
    )
    assert float(size.removesuffix(" with them")) > 1e30  # the two factors of 1e15, and more
    assert caught.value.exit_code == 2
    assert sorted(work.rglob("*")) == before


FAILURES = {
    "not finite in between": (
        np.linalg.LinAlgError("numbers that are not finite"),
        "it is not finite, though no entry is above 7e+00",
    ),
    "no library solves it": (
        UnsolvedError("no library gives the eigh of a 2 x 2 matrix in torch.float32"),
        "no library gives the eigh of a 2 x 2 matrix in torch.float32",
    ),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_of_the_arithmetic_blames_no_adapter(work, monkeypatch, kind):
    """Of adapters with ordinary numbers."""
    error, said = FAILURES[kind]
    for language in ("de", "en"):
        rewritten(work / language, lambda t: {key: one.clamp(-1, 1) for key, one in t.items()})

    def decompose(*_, **__):
        raise error

    monkeypatch.setattr("koinize.merge.compose.merge_module", decompose)
    with pytest.raises(StepError) as caught:
        merge_adapters({"de": "de", "en": "en"}, **MEAN, out="out")
    assert re.sub(r"above \S+;", "above 7e+00;", str(caught.value)) == (
        f"the merge of module '{Q}' failed: {said}; the adapters are sound; merge by another "
        "recipe, and report this as a fault of koinize or of its libraries"
    )
    assert caught.value.exit_code == 1
    assert not (work / "out").exists()


def test_a_merge_that_fails_leaves_no_parents_behind(work):
    """Folders that were there stay, and so does one that somebody else has begun to use."""
    rewritten(work / "en", with_value(torch.nan))
    (work / "old").mkdir()
    before = sorted(work.rglob("*"))
    assert "NaN" in failure(["merge", "en=en", "-o", "old/new/deep/out"])
    assert sorted(work.rglob("*")) == before

    def use(done, _):
        (work / "old/new/used").touch()

    rewritten(work / "de", lambda t: {**t, A_Q.replace(Q, V): t[A_Q.replace(Q, V)] * torch.nan})
    with pytest.raises(InputError):
        merge_adapters({"de": "de"}, recipe="sum", out="old/new/deep/out", progress=use)
    assert sorted(path for path in work.rglob("*") if path not in before) == [
        work / "old/new", work / "old/new/used",
    ]  # fmt: skip


def with_a_null() -> str:
    """What this Python says of a name with a null byte: the words differ between versions."""
    with pytest.raises(ValueError, match="embedded null") as caught:
        Path("a\0b").stat()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"), [("b" * 300, "File name too long"), ("a\0b", with_a_null())]
)
def test_names_that_no_file_can_have(work, name, reason):
    before = sorted(work.rglob("*"))
    with pytest.raises(InputError) as caught:
        merge_adapters({"de": "de"}, recipe="sum", out=name)
    shown = name.replace("\0", "\\u0000")
    assert str(caught.value) == f"{shown} cannot be written: {reason}; choose another name"
    with pytest.raises(InputError) as caught:
        merge_adapters({"de": name}, recipe="sum", out="out")
    said = "does not exist; expected a PEFT adapter folder"
    if reason == "File name too long":
        shown, said = f"{name}/{CONFIG}", f"cannot be read: {reason}"
    assert str(caught.value) == f"{shown} {said}"
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize("name", ["d|e", "d\ne", " ", "de ", " de", "|"])
def test_a_name_that_would_break_the_card(work, name):
    with pytest.raises(InputError) as caught:
        merge_adapters({name: "de", "en": "en"}, recipe="mean", out="out")
    assert str(caught.value) == (
        f"{name!r} cannot be the name of a language; expected printable characters but '|', no "
        "spaces around them, such as de or zh_CN"
    )


@pytest.mark.parametrize("name", ["b" * 255, "語" * 85])
def test_the_longest_name_of_an_output(work, name):
    """255 bytes; that of the hidden folder, which says more, has to fit too."""
    assert merge_adapters({"de": "de"}, recipe="sum", out=name).out.is_dir()


def test_parents_that_cannot_be_made_go(work):
    before = sorted(work.rglob("*"))
    out = f"new/{'b' * 300}/out"
    with pytest.raises(StepError) as caught:
        merge_adapters({"de": "de"}, recipe="sum", out=out)
    assert str(caught.value) == f"{out} cannot be written: File name too long"
    assert sorted(work.rglob("*")) == before


def test_one_folder_for_two_languages_warns_once(work):
    configured(work / "en", init_lora_weights="pissa")
    report = merge_adapters({"en": "en", "fr": "en"}, recipe="mean", out="out")
    (warning,) = read_header("en").warnings
    assert report.notes == (f"en, fr: {warning}",)


def test_a_memory_limit_that_is_too_small_says_what_is_needed(work):
    said = failure(["merge", "de=de", "en=en", "-o", "out", "--max-memory", "1kB"])
    assert said.startswith((f"module '{V}' needs ", f"module '{Q}' needs "))
    assert "MB in space 'knots', and max-memory is 0.0 MB; give max-memory at least " in said


def test_different_ranks_in_the_factor_space(work):
    save(work / "fr", 3, rank=2)
    options = ["--dialect", "peft", "--recipe", "ties", "-o", "out"]
    assert failure(["merge", "de=de", "fr=fr", *options]) == (
        f"fr module '{Q}' has rank 2 in 'fr' and 3 in 'de', and space 'factor' adds up factors; "
        "merge in space 'dense', 'knots' or 'core'"
    )


def test_every_mistake_is_told_at_once(work):
    to_bin(work / "de")
    configured(work / "en", use_dora=True)
    said = failure(["merge", "de=de", "en=en", "fr=gone", "-o", "out", "--weight", "xx=1"])
    assert [line.split()[0] for line in said.splitlines()] == [
        "de", f"en/{CONFIG}", "gone", "there",
    ]  # fmt: skip
    assert (
        len(failure(["merge", "de=de", "--density", "0", "--scale", "0", "-o", "o"]).splitlines())
        == 2
    )


@pytest.mark.parametrize("command", ["fuse", "resize", "verify", "inspect"])
def test_the_other_commands_refuse_the_same(work, command):
    configured(work / "en", use_dora=True)
    more = {
        "fuse": ["en", "de", "-o", "out"],
        "resize": ["en", "2", "-o", "out"],
        "verify": ["en"],
        "inspect": ["en=en"],
    }[command]
    before = sorted(work.rglob("*"))
    assert failure([command, *more]) == (
        f"en/{CONFIG} use_dora is set: DoRA rescales the base weights' columns, which no sum of B "
        f"A can express; {WITHOUT}"
    )
    assert sorted(work.rglob("*")) == before


STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 130, signal.SIGKILL: -9}
SLOW = """
import sys, time
from koinize.engine import stream
work = stream.MergeStream._read
def slow(self, module):
    time.sleep(0.3)
    return work(self, module)
stream.MergeStream._read = slow
from koinize.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", STOPPED)
def test_a_merge_that_is_stopped_leaves_no_output(work, number):
    """Ctrl-C and SIGTERM leave nothing; what SIGKILL leaves, the next merge of the name removes."""
    shapes = {f"model.layers.{layer}.q_proj": (12, 10) for layer in range(60)}
    save(work / "fr", 1, shapes)
    before = set(work.iterdir())
    arguments = ["merge", "fr=fr", "-o", "out"]
    command = [sys.executable, "-c", SLOW, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and set(work.iterdir()) == before:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == STOPPED[number]
    left = set(work.iterdir()) - before
    if number == signal.SIGKILL:
        assert [one.name.endswith(".partial") for one in left] == [True]
    else:
        assert not left
        assert said == "koinize: stopped; nothing was written\n"
    program = "from koinize.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert "60/60 modules, " in result.stderr
    assert set(work.iterdir()) - before == {work / "out"}
