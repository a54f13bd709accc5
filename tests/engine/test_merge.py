"""Folders in, folder out: plan, bytes, messages, cards."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import koinize
from koinize.adapter import open_adapter
from koinize.engine import merge_adapters, vllm_flags
from koinize.engine.device import merge_device
from koinize.engine.verify import verify_adapter
from koinize.errors import InputError, StepError
from koinize.merge.recipe import RECIPES, merge_settings

SHAPES = {"model.layers.0.q_proj": (12, 10), "model.layers.1.v_proj": (6, 14)}


def save(folder, seed, *, shapes=SHAPES, rank=3, **config):
    folder.mkdir()
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in shapes.items():
        prefix = f"base_model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, inputs, generator=random)
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(outputs, rank, generator=random)
    save_file(tensors, folder / "adapter_model.safetensors")
    stated = {
        "peft_type": "LORA",
        "base_model_name_or_path": "example/base",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["v_proj", "q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps({**stated, **config}))
    return folder


@pytest.fixture
def adapters(tmp_path):
    names = ("en", "fr", "ja")
    return {name: save(tmp_path / name, seed) for seed, name in enumerate(names)}


def delta(folder, module="model.layers.0.q_proj"):
    with open_adapter(folder) as adapter:
        read = adapter.factors(module)
    return read.B.double() @ read.A.double()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        merge_adapters(*args, **kwargs)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("recipe", RECIPES.names())
def test_bytes_depend_on_neither_order_nor_threads(tmp_path, adapters, recipe):
    before = torch.get_num_threads()
    one = merge_adapters(adapters, recipe=recipe, rank=4, out=tmp_path / "one")
    backwards = dict(reversed(adapters.items()))
    two = merge_adapters(backwards, recipe=recipe, rank=4, out=tmp_path / "two", threads=3)
    assert contents(one.out) == contents(two.out)
    assert torch.get_num_threads() == before


def test_updating_one_language_equals_merging_from_scratch(tmp_path, adapters):
    options = {"recipe": "knots-dare-ties", "density": 0.5, "seed": 5}
    merge_adapters(adapters, **options, out=tmp_path / "old")
    updated = {**adapters, "fr": save(tmp_path / "fr2", 9)}
    new = merge_adapters(updated, **options, out=tmp_path / "new")
    again = merge_adapters(dict(reversed(updated.items())), **options, out=tmp_path / "again")
    assert contents(new.out) == contents(again.out)
    assert contents(new.out) != contents(tmp_path / "old")


def test_mean_is_the_mean_of_the_deltas(tmp_path, adapters):
    report = koinize.merge_adapters(
        adapters, recipe="mean", weights={"en": 2.0}, scale=0.5, out=tmp_path / "out"
    )
    expected = (2 * delta(adapters["en"]) + delta(adapters["fr"]) + delta(adapters["ja"])) / 8
    # Three float32 products of rank 3.
    assert torch.allclose(delta(report.out), expected, rtol=0, atol=16 * 2**-23)
    assert (report.rank, report.error, report.warnings) == (9, 0.0, ())


def test_different_modules_ranks_and_scales_per_language(tmp_path, adapters):
    other = save(
        tmp_path / "de",
        4,
        shapes={"model.layers.0.q_proj": (12, 10), "model.layers.2.o_proj": (5, 5)},
        rank=2,
        use_rslora=True,
        lora_alpha=6,
    )
    report = merge_adapters({**adapters, "de": other}, recipe="mean", out=tmp_path / "out")
    everyone = [*adapters.values(), other]
    expected = sum(delta(folder) for folder in everyone) / 4
    assert torch.allclose(delta(report.out), expected, rtol=0, atol=16 * 2**-23)
    # A language that does not adapt a module contributes an update of zero there.
    o_proj = delta(report.out, "model.layers.2.o_proj")
    assert torch.allclose(o_proj, delta(other, "model.layers.2.o_proj") / 4, atol=16 * 2**-23)
    config = json.loads((report.out / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 11
    assert (
        config["rank_pattern"]
        == config["alpha_pattern"]
        == {
            "model.layers.1.v_proj": 9,
            "model.layers.2.o_proj": 2,
        }
    )
    assert config["target_modules"] == [
        "model.layers.0.q_proj",
        "model.layers.1.v_proj",
        "model.layers.2.o_proj",
    ]


def test_card_and_config(tmp_path, adapters):
    report = merge_adapters(
        adapters,
        merge_settings(recipe="knots-ties", density=0.5, rank=4),
        out=tmp_path / "out",
        card={"license": "apache-2.0"},
    )
    card = (report.out / "README.md").read_text()
    assert card.startswith(
        '---\nbase_model: "example/base"\nlanguage: ["en", "fr", "ja"]\nlibrary_name: "peft"\n'
        'tags: ["lora", "merge", "koinize"]\nlicense: "apache-2.0"\n---\n\n'
        "# Merged adapter: en, fr, ja\n\n`knots-ties density 0.5 rank 4`. "
    )
    assert f"- Lost by the change of rank: {report.error:.3%} of the Frobenius norm.\n" in card
    assert "- vLLM: `--enable-lora --max-lora-rank 8`.\n" in card
    for language, digest in report.inputs.items():
        assert f"| {language} | 1 | `{digest}` |" in card
    assert report.warnings == (
        f"the change of rank lost {report.error:.1%} of the merge (Frobenius norm)",
    )
    config = json.loads((report.out / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 4, False)
    assert config["init_lora_weights"] is True


@pytest.mark.parametrize("only_some", [False, True])
@pytest.mark.parametrize("recipe", ["mean", "knots-ties"])
def test_a_stated_error_is_the_measured_one(tmp_path, adapters, recipe, only_some):
    """Over all modules, whether all of them were cut or one."""
    lower = {"overrides": {min(SHAPES): {"rank": 3}}} if only_some else {"rank": 3}
    full = merge_adapters(adapters, recipe=recipe, out=tmp_path / "full")
    cut = merge_adapters(adapters, recipe=recipe, out=tmp_path / "cut", **lower)
    lost = total = 0.0
    for module in SHAPES:
        whole = delta(full.out, module)
        lost += float((whole - delta(cut.out, module)).square().sum())
        total += float(whole.square().sum())
    assert cut.error == pytest.approx((lost / total) ** 0.5, rel=1e-5)


def test_progress_counts_modules(tmp_path, adapters):
    seen = []
    merge_adapters(
        adapters, recipe="mean", out=tmp_path / "out", progress=lambda *step: seen.append(step)
    )
    assert seen == [(1, 2), (2, 2)]


def test_vllm_flags():
    assert vllm_flags(5) == "--enable-lora --max-lora-rank 8"
    assert vllm_flags(320) == "--enable-lora --max-lora-rank 320"
    assert vllm_flags(321) == "--enable-lora --max-lora-rank 512"
    assert vllm_flags(513) == ""


def test_refusals_before_a_tensor_is_read(tmp_path, adapters):
    out = tmp_path / "out"
    assert refusal({}, recipe="mean", out=out) == (
        "there is no adapter; expected at least one LANGUAGE=FOLDER"
    )
    assert refusal(adapters, recipe="tise", out=out) == (
        "unknown recipe 'tise'; did you mean 'ties'?"
    )
    assert refusal(adapters, recipe="ties", seed=1, out=out).startswith(
        "recipe 'ties' does not use 'seed'; it uses density, "
    )
    assert refusal(adapters, recipe="ties", density=0.0, out=out) == (
        "density is 0.0; expected a number greater than 0"
    )
    assert refusal(adapters, recipe="mean", weights={"ne": 1.0}, out=out) == (
        "there is a weight for 'ne' but no adapter; choose one of: en, fr, ja"
    )
    assert refusal(adapters, recipe="mean", weights={"en": -1.0, "fr": 0.0}, out=out) == (
        "the weights sum to 0, and a mean divides by their sum; use recipe 'sum' for differences"
    )
    nothing = dict.fromkeys(adapters, 0.0)
    assert refusal(adapters, recipe="ties", weights=nothing, out=out) == (
        "all weights are 0; give at least one language a weight"
    )
    assert refusal(adapters, recipe="mean", out=adapters["en"]) == (
        f"{adapters['en']} exists already; remove it or choose another name"
    )
    assert not out.exists()


def test_adapters_of_different_bases(tmp_path, adapters):
    base = save(tmp_path / "de", 5, base_model_name_or_path="other/base", revision="v2")
    assert refusal({**adapters, "zh": base}, recipe="mean", out=tmp_path / "out") == (
        f"{base} 'zh' adapts other/base at v2, 'en' adapts example/base; expected adapters of one "
        "base model; if the two are the same, make both adapter_config.json say so"
    )
    shape = save(tmp_path / "it", 5, shapes={"model.layers.0.q_proj": (12, 11)})
    both = {**adapters, "zg": tmp_path / "none", "zh": shape}
    assert refusal(both, recipe="mean", out=tmp_path / "out") == (
        f"{tmp_path}/none does not exist; expected a PEFT adapter folder"
        f"\n{shape} module 'model.layers.0.q_proj' is 12 x 11 in 'zh' and 12 x 10 in 'en'; "
        "expected adapters of one base model"
    )


def test_a_bad_value_leaves_no_output(tmp_path, adapters):
    path = adapters["fr"] / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.model.layers.1.v_proj.lora_B.weight"][0, 0] = np.nan
    save_file(tensors, path)
    before = set(tmp_path.iterdir())
    assert "'model.layers.1.v_proj.lora_B' holds NaN" in refusal(
        adapters, recipe="mean", out=tmp_path / "out", threads=2
    )
    assert set(tmp_path.iterdir()) == before


def test_a_full_disk_is_a_failed_step(tmp_path, adapters, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("koinize.adapter.tensorfile.TensorWriter.write", full)
    with pytest.raises(StepError) as caught:
        merge_adapters(adapters, recipe="mean", out=tmp_path / "out")
    assert str(caught.value) == f"{tmp_path}/out cannot be written: No space left on device"
    assert {path.name for path in tmp_path.iterdir()} == {"en", "fr", "ja"}


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_hash_seed(tmp_path, adapters):
    program = (
        "import sys; from koinize import merge_adapters; "
        f"merge_adapters({ {k: str(v) for k, v in adapters.items()}!r}, "
        "recipe='knots-dare-ties', density=0.4, out=sys.argv[1])"
    )
    outs = [tmp_path / "h1", tmp_path / "h2"]
    for seed, out in enumerate(outs):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([sys.executable, "-c", program, str(out)], check=True, env=environment)
    assert contents(outs[0]) == contents(outs[1])


@pytest.mark.parametrize("recipe", ["mean", "ties", "core-ties", "knots-ties"])
def test_the_memory_limit_changes_no_byte(tmp_path, adapters, recipe):
    free = merge_adapters(adapters, recipe=recipe, rank=4, out=tmp_path / "free", threads=3)
    with pytest.raises(InputError) as caught:
        merge_adapters(adapters, recipe=recipe, rank=4, out=tmp_path / "tight", max_memory=1)
    needed = re.search(r"needs ([\d.]+) MB", str(caught.value))[1]
    tight = merge_adapters(
        adapters, recipe=recipe, rank=4, out=tmp_path / "tight", threads=3, max_memory=f"{needed}MB"
    )
    assert contents(free.out) == contents(tight.out)


def test_a_memory_limit_that_is_too_small(tmp_path, adapters):
    message = refusal(adapters, recipe="ties", out=tmp_path / "out", max_memory="10kB")
    needed = re.search(r"needs ([\d.]+ MB)", message)[1]
    assert message == (
        f"module 'model.layers.0.q_proj' needs {needed} in space 'dense', and max-memory is 0.0 MB;"
        f" give max-memory at least {needed}, or merge in space 'knots' or 'core', which never form"
        " a whole update"
    )
    assert not (tmp_path / "out").exists()


def test_devices(tmp_path, adapters, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refusal(adapters, recipe="mean", out=tmp_path / "out", device="cuda") == (
        "device 'cuda' was asked for, and torch finds no CUDA devices; use device cpu, or auto to "
        "take CUDA only where there is any"
    )
    assert refusal(adapters, recipe="mean", out=tmp_path / "out", device="tpu") == (
        "device 'tpu' is unknown; expected cpu, cuda, cuda:N or auto"
    )
    one = merge_adapters(adapters, recipe="mean", out=tmp_path / "one", device="cpu")
    two = merge_adapters(adapters, recipe="mean", out=tmp_path / "two", device="auto")
    assert contents(one.out) == contents(two.out)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert merge_device("auto") == torch.device("cuda")
    assert refusal(adapters, recipe="mean", out=tmp_path / "out", device="cuda:1") == (
        "device 'cuda:1' was asked for, and torch finds 1 CUDA device; use device cpu, or auto to "
        "take CUDA only where there is any"
    )


HEAD = "base_model.model.lm_head.weight"


def with_head(folder, head):
    """Give an adapter a whole module, as PEFT stores `modules_to_save`."""
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), HEAD: head}, path)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["modules_to_save"] = ["lm_head"]
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_whole_modules_that_are_equal_are_carried_over(tmp_path, adapters, monkeypatch):
    monkeypatch.setattr("koinize.adapter.factors.PIECE_BYTES", 8)
    head = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    plain = merge_adapters(adapters, recipe="ties", rank=2, out=tmp_path / "plain")
    for folder in adapters.values():
        with_head(folder, head)
    out = merge_adapters(adapters, recipe="ties", rank=2, out=tmp_path / "out").out
    written = load_file(out / "adapter_model.safetensors")
    assert torch.equal(written.pop(HEAD), head)
    alone = load_file(plain.out / "adapter_model.safetensors")
    assert written.keys() == alone.keys()
    assert all(torch.equal(written[name], alone[name]) for name in alone)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["lm_head"]
    assert verify_adapter(out, adapters).mismatches == ()


def test_whole_modules_that_conflict_are_refused(tmp_path, adapters):
    before = set(tmp_path.iterdir())
    head = torch.ones(5, 7)
    for folder in adapters.values():
        with_head(folder, head)

    def conflict(language):
        return (
            f"{adapters[language]} the whole module's tensor '{HEAD}' differs between '{language}' "
            "and 'en', and a merge of updates says nothing about it; expected modules_to_save that "
            "are equal, byte for byte, in all adapters; train the adapters without modules_to_save"
        )

    head[4, 6] = 1.0 + 2**-20  # another value, seen in the bytes alone
    with_head(adapters["ja"], head)
    assert refusal(adapters, recipe="mean", out=tmp_path / "out") == conflict("ja")
    with_head(adapters["ja"], torch.ones(5, 7))
    with_head(adapters["fr"], torch.ones(5, 7, dtype=torch.float16))  # seen in the header
    assert refusal(adapters, recipe="mean", out=tmp_path / "out") == conflict("fr")
    for folder in adapters.values():
        with_head(folder, torch.full((5, 7), torch.nan))
    assert refusal(adapters, recipe="mean", out=tmp_path / "out") == (
        f"{adapters['en']}/adapter_model.safetensors tensor '{HEAD}' holds NaN or infinity; its "
        "training diverged or the file is damaged"
    )
    assert set(tmp_path.iterdir()) == before


def test_one_adapter_without_the_whole_module_conflicts(tmp_path, adapters):
    with_head(adapters["fr"], torch.ones(2, 2))
    assert refusal(adapters, recipe="mean", out=tmp_path / "out") == (
        f"{adapters['en']} 'fr' carries the whole module's tensor '{HEAD}', 'en' lacks it; "
        "expected modules_to_save that are equal, byte for byte, in all adapters; merge adapters "
        "that were trained with the same modules_to_save"
    )
