"""An adapter added to its base's weights: which bytes, and what is refused."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from koinize.engine.conv1d import CONV1D_LAYERS, CONV1D_TYPES
from koinize.engine.fuse import fuse_adapter
from koinize.errors import InputError
from tests.peft_folders import Q, base_model, deltas, loaded, save


@pytest.fixture
def adapters(tmp_path):
    return {name: save(tmp_path / name, seed) for seed, name in enumerate(("en", "fr", "ja"))}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fuse_rounds_the_exact_sum_once(tmp_path, adapters, dtype, shards):
    base, tensors = base_model(tmp_path / "base", dtype, shards)
    report = fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    found, lost, total = loaded(report.out), 0.0, 0.0
    for name, delta in deltas(adapters["en"]).items():
        exact = tensors[f"{name}.weight"].double().numpy() + delta
        written = found[f"{name}.weight"]
        assert written.dtype == dtype
        # One rounding to the dtype, and three float32 products before it.
        step = torch.finfo(dtype).eps / 2 + 8 * 2**-24
        assert (np.abs(written.double().numpy() - exact) <= step * np.abs(exact).max()).all()
        lost += ((written.double().numpy() - exact) ** 2).sum()
        total += (delta**2).sum()
    assert torch.equal(found["model.norm.weight"], tensors["model.norm.weight"])
    if dtype == torch.bfloat16:
        assert report.loss == pytest.approx(math.sqrt(lost / total), rel=1e-3)
    names = {path.name for path in report.out.iterdir()}
    assert "config.json" in names
    assert "pytorch_model.bin" not in names


# --- weights that are stored inputs x outputs (Conv1D)

HEAD, SQUARE = "lm_head", "transformer.h.0.attn.c_proj"


@pytest.mark.parametrize("flag", [False, True])
def test_the_shape_tells_what_is_turned(tmp_path, flag):
    """Whatever the adapter's flag says: it is that of the last module that PEFT looked at."""
    adapter = save(tmp_path / "en", 0, fan_in_fan_out=flag)
    base, tensors = base_model(tmp_path / "base", turned=True)
    out = fuse_adapter(adapter, base, out=tmp_path / "out").out
    wanted = tensors[f"{Q}.weight"].double().numpy() + deltas(adapter)[Q].T
    assert loaded(out)[f"{Q}.weight"].numpy() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("config", "flag", "others", "turned"),
    [
        # What the transformers library defines is known, whatever the flag says.
        ({"model_type": "gpt2"}, False, {HEAD: (20, 8)}, True),
        ({"model_type": "gpt2"}, True, {}, True),
        ({"model_type": "speech", "decoder": {"model_type": "gpt2"}}, False, {}, True),
        ({"model_type": "gpt_bigcode"}, True, {}, False),
        # A model's own code: the flag, where nothing speaks against it.
        ({}, False, {}, False),
        ({"model_type": "gpt2", "auto_map": {}}, False, {}, False),
        ({}, False, {"transformer.h.0.mlp.c_fc": (20, 8)}, False),
    ],
)
def test_square_weights(tmp_path, config, flag, others, turned):
    shapes = {SQUARE: (8, 8), **others}
    adapter = save(tmp_path / "en", 0, shapes, fan_in_fan_out=flag)
    base, tensors = base_model(tmp_path / "base", shapes=shapes, config=json.dumps(config))
    delta = deltas(adapter)[SQUARE]
    wanted = tensors[f"{SQUARE}.weight"].double().numpy() + (delta.T if turned else delta)
    out = fuse_adapter(adapter, base, out=tmp_path / "out").out
    assert loaded(out)[f"{SQUARE}.weight"].numpy() == pytest.approx(wanted, abs=1e-5)


def test_square_weights_of_an_unknown_model_by_the_others(tmp_path):
    """One of the same layers is stored inputs x outputs, and the flag agrees."""
    shapes = {SQUARE: (8, 8), "transformer.h.0.mlp.c_fc": (20, 8)}
    adapter = save(tmp_path / "en", 0, shapes, fan_in_fan_out=True)
    base, tensors = base_model(tmp_path / "base", shapes=shapes, turned=True)
    wanted = tensors[f"{SQUARE}.weight"].double().numpy() + deltas(adapter)[SQUARE].T
    out = fuse_adapter(adapter, base, out=tmp_path / "out").out
    assert loaded(out)[f"{SQUARE}.weight"].numpy() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("config", ["{}", '{"model_type": "x", "auto_map": {}}', "[", "[" * 10**5])
@pytest.mark.parametrize(
    ("flag", "others"),
    [
        (True, {}),  # no other module says so, and not every tool means this flag
        (False, {HEAD: (20, 8)}),  # it may be the flag of the head alone
        (True, {"transformer.h.0.mlp.c_fc": (20, 8)}),  # flag and shape disagree
    ],
)
def test_square_weights_that_nothing_tells_of(tmp_path, config, flag, others):
    shapes = {SQUARE: (8, 8), **others}
    adapter = save(tmp_path / "en", 0, shapes, fan_in_fan_out=flag)
    base, _ = base_model(tmp_path / "base", shapes=shapes, config=config)
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapter, base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{base}/config.json does not tell whether '{SQUARE}', which is square, is stored inputs x "
        "outputs; expected the model_type of a model of the transformers library, without "
        "auto_map; merge the adapter into the base with PEFT"
    )
    assert not (tmp_path / "out").exists()


def test_the_models_with_conv1d_are_all_known():
    """Of the transformers library that is installed, by its source."""
    models = Path(transformers.__file__).parent / "models"
    types, turned, plain = set(), set(), set()
    for path in models.glob("*/modeling_*.py"):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"import.*\bConv1D\b", text):
            continue
        turned |= set(re.findall(r"self\.(\w+) = Conv1D\(", text))
        plain |= set(re.findall(r"self\.(\w+) = nn\.Linear\(", text))
        for configuration in path.parent.glob("configuration_*.py"):
            stated = re.findall(
                r'^    model_type = "(.+)"', configuration.read_text(), re.MULTILINE
            )
            types |= set(stated)
    assert types == CONV1D_TYPES
    assert turned == CONV1D_LAYERS
    assert not turned & plain


@pytest.mark.parametrize("targets", [["attn.c_proj", "lm_head"], ["c_attn", "c_proj"]])
def test_fusing_into_gpt2_is_what_peft_does(tmp_path, targets):
    config = transformers.GPT2Config(
        n_layer=2, n_embd=8, n_head=2, vocab_size=20, n_positions=16, tie_word_embeddings=False
    )
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")

    def fresh():
        return transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")

    model = get_peft_model(
        fresh(), LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    )
    model.save_pretrained(tmp_path / "en", save_embedding_layers=False)
    report = fuse_adapter(tmp_path / "en", tmp_path / "base", out=tmp_path / "out")
    expected = PeftModel.from_pretrained(fresh(), tmp_path / "en").merge_and_unload().state_dict()
    found = transformers.GPT2LMHeadModel.from_pretrained(report.out).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=0, atol=1e-6), name


# --- bases that do not fit


@pytest.mark.slow
def test_fuse_refuses_a_base_that_does_not_fit(tmp_path, adapters):
    base, _ = base_model(tmp_path / "base", turned=True, config='{"model_type": "llama"}')
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{base}/model.safetensors tensor '{Q}.weight' is F32 [10, 12]; expected [12, 10] in F32, "
        "BF16, F16, as the adapter has it"
    )
    other = save(tmp_path / "odd", 1, shapes={"model.layers.0.q_prog": (12, 10)})
    with pytest.raises(InputError) as caught:
        fuse_adapter(other, base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{base} has no tensor 'model.layers.0.q_prog.weight', which the adapter changes; did you "
        f"mean '{Q}.weight'?"
    )
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], tmp_path, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path} does not hold its safetensors files; expected the folder of a base model"
    )
    assert set(tmp_path.iterdir()) == before | {other}


@pytest.mark.parametrize(
    ("renamed", "found"),
    [
        (lambda name: name.removeprefix("model."), True),  # saved without its head
        (lambda name: f"transformer.{name}", True),  # the adapter was trained without the head
        (lambda name: f"a.b.{name}", False),
    ],
)
def test_a_base_saved_without_its_head_or_with_it(tmp_path, adapters, renamed, found):
    base, tensors = base_model(tmp_path / "base")
    tensors = {renamed(name): tensor for name, tensor in tensors.items()}
    save_file(tensors, base / "model.safetensors")
    if not found:
        with pytest.raises(InputError) as caught:
            fuse_adapter(adapters["en"], base, out=tmp_path / "out")
        assert str(caught.value) == (
            f"{base} has no tensor '{Q}.weight', which the adapter changes; did you mean "
            f"'a.b.{Q}.weight'?"
        )
        return
    written = loaded(fuse_adapter(adapters["en"], base, out=tmp_path / "out").out)
    for module, delta in deltas(adapters["en"]).items():
        name = renamed(f"{module}.weight")
        assert np.allclose(written[name], tensors[name] + delta, rtol=0, atol=1e-5)


def test_a_base_that_is_not_there(tmp_path, adapters):
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], tmp_path / "nope", out=tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path}/nope is no folder; expected the folder of a base model"
    )


def test_two_tensors_that_may_be_meant(tmp_path, adapters):
    base, tensors = base_model(tmp_path / "base")
    both = {
        f"{part}.{name}": one.clone() for name, one in tensors.items() for part in ("text", "image")
    }
    save_file(both, base / "model.safetensors")
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    named = [f"'{part}.{Q}.weight'" for part in ("image", "text")]
    assert str(caught.value) == (
        f"{base} has {named[0]} and {named[1]}, and the adapter changes a '{Q}.weight'; give the "
        "base that the adapter was trained on"
    )


def test_two_modules_for_one_tensor(tmp_path):
    base, _ = base_model(tmp_path / "base")
    shapes = {f"{part}.{Q}": (12, 10) for part in ("image", "text")}
    adapter = save(tmp_path / "en", 0, shapes=shapes)
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapter, base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{base} has one tensor '{Q}.weight' for the modules 'image.{Q}' and 'text.{Q}'; give the "
        "base that the adapter was trained on"
    )


def test_fuse_refuses_whole_modules(tmp_path, adapters):
    path = adapters["en"] / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.lm_head.weight": torch.ones(2, 2)}, path)
    config = json.loads((adapters["en"] / "adapter_config.json").read_text())
    config["modules_to_save"] = ["lm_head"]
    (adapters["en"] / "adapter_config.json").write_text(json.dumps(config))
    base, _ = base_model(tmp_path / "base")
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{adapters['en']} holds the whole modules lm_head, which are no update; expected LoRA "
        "factors alone; merge it into the base with PEFT"
    )


def test_an_index_cannot_point_outside(tmp_path, adapters):
    base, _ = base_model(tmp_path / "base", shards=3)
    index = {"weight_map": {"a": "../en/adapter_model.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"{base} does not hold its safetensors files; expected the folder of a base model"
    )


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"a": 1}}', "[" * 10**5]
)
def test_an_index_that_is_none(tmp_path, adapters, text):
    base, _ = base_model(tmp_path / "base", shards=3)
    (base / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == f"{base}/model.safetensors.index.json is not an index of weights"


def test_a_base_with_an_impossible_name(tmp_path, adapters):
    base = tmp_path / ("b" * 300)
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == f"{base} cannot be read: File name too long"


@pytest.mark.parametrize("shards", [1, 3])
def test_a_tensor_in_two_files_is_refused(tmp_path, adapters, shards):
    """Also where an index names one of the two: a program may load the other."""
    base, tensors = base_model(tmp_path / "base", shards=shards)
    save_file(tensors, base / "whole.safetensors")
    first = "model.safetensors" if shards == 1 else "model-00001-of-00003.safetensors"
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    message = str(caught.value)
    name = re.search("tensor '(.+?)'", message)[1]
    assert message == (
        f"{base} holds tensor '{name}' in {first} and in whole.safetensors; expected every tensor "
        "once; remove the file that does not belong to the model"
    )
    assert not (tmp_path / "out").exists()


def test_weights_besides_the_model_stay_behind(tmp_path, adapters):
    """They would be those of the base: in another layout here, which the index leaves out."""
    base, _ = base_model(tmp_path / "base", shards=3)
    save_file({"layers.0.wq.weight": torch.ones(2)}, base / "consolidated.safetensors")
    out = fuse_adapter(adapters["en"], base, out=tmp_path / "out").out
    left = {path.name for path in base.iterdir()} - {path.name for path in out.iterdir()}
    assert left == {"consolidated.safetensors", "pytorch_model.bin"}


# --- results that are not finite


def test_a_sum_beyond_the_dtype_is_refused(tmp_path, adapters):
    base, _ = base_model(tmp_path / "base", torch.float16)
    path = adapters["en"] / "adapter_model.safetensors"
    # Entries of about 1e6, where float16 ends at 65504.
    save_file({name: tensor * 1e3 for name, tensor in load_file(path).items()}, path)
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"the base's tensor '{Q}.weight' with the update is beyond what F16 can hold; check the "
        "adapter's values, or convert the base to a wider dtype"
    )
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_base_that_is_not_finite_is_refused(tmp_path, adapters, value):
    base, tensors = base_model(tmp_path / "base")
    tensors[f"{Q}.weight"][0, 0] = value
    save_file(tensors, base / "model.safetensors")
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        fuse_adapter(adapters["en"], base, out=tmp_path / "out")
    assert str(caught.value) == (
        f"the base's tensor '{Q}.weight' holds NaN or infinity; its file is damaged"
    )
    assert set(tmp_path.iterdir()) == before


TEXT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
SEEING = {"hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "depth": 1}
RENAMED = {
    "gemma3": {
        "text_config": {**TEXT, "head_dim": 8, "query_pre_attn_scalar": 8},
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
    },
    "qwen3_5": {
        "text_config": {
            **TEXT, "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
        "vision_config": {**SEEING, "out_hidden_size": 32},
    },
    "qwen2_5_vl": {
        "text_config": {
            **TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        },
        "vision_config": {**SEEING, "out_hidden_size": 32},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", RENAMED)
def test_layers_that_a_checkpoint_calls_otherwise(tmp_path, family):
    """What transformers renames on loading is found, for each class that loads the base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.for_model(family, **RENAMED[family])
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).float().save_pretrained(tmp_path / "base")
    kinds = [AutoModelForImageTextToText]
    if family != "qwen2_5_vl":  # which has no class of its text alone
        kinds.append(AutoModelForCausalLM)
    for number, kind in enumerate(kinds):
        model = kind.from_pretrained(tmp_path / "base").float()
        lora = LoraConfig(r=2, target_modules=r".*layers.*\.q_proj", init_lora_weights=False)
        tuned = get_peft_model(model, lora).eval()
        folder, out = tmp_path / f"adapter{number}", tmp_path / f"out{number}"
        tuned.save_pretrained(folder, save_embedding_layers=False)
        fuse_adapter(folder, tmp_path / "base", out=out)
        ids = torch.arange(2, 20)[None]
        with torch.inference_mode():
            wanted = tuned(input_ids=ids).logits
            found = kind.from_pretrained(out).eval()(input_ids=ids).logits
        # Two layers of 32 products each, in float32.
        assert float((found - wanted).abs().max()) <= 64 * 1.2e-7 * float(wanted.abs().max())
