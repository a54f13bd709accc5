"""Loading, encoding, padding, and adapters that come and go."""

from __future__ import annotations

import gc
import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from koinize.errors import InputError, StepError
from koinize.evaluate import evaluate
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer, write_tiny_base
from koinize.model.encoding import Encoder
from koinize.model.loaded import Loaded, adopt, load_model, pad, padded_width, with_adapter
from koinize.model.loading import uncollected
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train

CPU = torch.device("cpu")
TURN = 3  # the id of '<turn>'
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}<turn>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def loaded(seed: int = 0, **settings: object) -> Loaded:
    return adopt(tiny_model(seed, **settings), tiny_tokenizer(), CPU, name="tiny")


def byte_ids(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False).input_ids


def adapter(folder: Path) -> Path:
    rows = [Example(key=str(i), language="en", prompt=f"{i}", target="yes") for i in range(4)]
    training = TrainingSpec(epochs=3, learning_rate=0.05, batch_size=2)
    train(loaded(), rows, [], LoraSpec(r=2), training, folder)
    return folder


def logits(base: Loaded) -> torch.Tensor:
    with torch.no_grad():
        return base.model(torch.arange(1, 20)[None]).logits


def test_plain_text_moves_the_last_space_to_the_target():
    encoder = Encoder(tiny_tokenizer())
    tokens = encoder.encode("Hi: ", ["yes", ""], max_length=99, end=True)
    assert tokens.prompt == (1, *byte_ids("Hi:"))
    assert tokens.targets == ((*byte_ids(" yes"), 2), (*byte_ids(" "), 2))
    assert (tokens.longest, tokens.total, tokens.truncated) == (4 + 5, 4 + 5 + 2, False)
    newline = encoder.encode("Hi:\n", ["yes"], max_length=99)
    assert newline.prompt == (1, *byte_ids("Hi:\n"))
    assert encoder.end_tokens == {2}
    assert encoder.unconditional() == (1,)


def test_a_chat_template_wraps_the_prompt_and_ends_the_answer():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    encoder = Encoder(tokenizer, [9])
    tokens = encoder.encode("Hi ", ["yes"], max_length=99, end=True)
    expected = (1, *byte_ids("user:Hi "), TURN, *byte_ids("assistant:"))
    assert tokens.prompt == expected
    assert tokens.targets == ((*byte_ids("yes"), TURN),)
    assert encoder.end_tokens == {2, TURN, 9}


@given(st.text(max_size=60), st.text(min_size=1, max_size=12), st.integers(20, 40))
def test_a_long_prompt_loses_its_middle_and_a_target_nothing(prompt, target, max_length):
    encoder = Encoder(tiny_tokenizer())
    whole = encoder.encode(prompt, [target], max_length=999)
    size = len(whole.targets[0])
    if size >= max_length:
        with pytest.raises(InputError):
            encoder.encode(prompt, [target], max_length=max_length)
        return
    tokens = encoder.encode(prompt, [target], max_length=max_length)
    assert tokens.targets == whole.targets
    assert tokens.longest == min(whole.longest, max_length)
    assert tokens.truncated == (whole.longest > max_length)
    head = (max_length - size) // 2
    tail = len(tokens.prompt) - head
    if tokens.truncated:
        assert tokens.prompt == whole.prompt[:head] + whole.prompt[-tail:]
    else:
        assert tokens.prompt == whole.prompt


def test_targets_that_cannot_be_encoded_are_named():
    encoder = Encoder(tiny_tokenizer())
    with pytest.raises(InputError) as caught:
        encoder.encode("a", ["12345678"], max_length=8, where="example k1")
    assert str(caught.value) == (
        "example k1 a target of 8 tokens leaves no room for its prompt; expected fewer than "
        "max_length = 8 tokens; raise max_length or shorten the target"
    )
    with pytest.raises(InputError) as caught:
        encoder.encode("a", [""], max_length=8, where="example k1")
    assert str(caught.value) == "example k1 a target has no text; expected at least one token"


def test_padding_on_either_side():
    ids, mask = pad([[5, 6], [7]], 0, CPU)
    assert (ids.tolist(), mask.tolist()) == ([[5, 6], [7, 0]], [[1, 1], [1, 0]])
    ids, mask = pad([[5, 6], [7]], 9, CPU, left=True)
    assert (ids.tolist(), mask.tolist()) == ([[5, 6], [9, 7]], [[1, 1], [0, 1]])


@pytest.mark.parametrize("settings", [{}, {"final_logit_softcapping": 1.5}])
def test_the_head_gives_the_models_own_logits(settings):
    base = loaded(**settings)
    with torch.no_grad():
        ids = torch.arange(4, 30)[None]
        ours = base.head(base.backbone(input_ids=ids).last_hidden_state[0])
        assert torch.allclose(ours, base.model(ids).logits[0], atol=1e-6)


def test_logit_scales_of_other_families():
    from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM

    shape = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 16}
    shape |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    shape |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    cohere = CohereForCausalLM(CohereConfig(**shape, logit_scale=0.25)).eval()
    granite = GraniteForCausalLM(GraniteConfig(**shape, logits_scaling=8.0)).eval()
    for model, scale in ((cohere, 0.25), (granite, 0.125)):
        assert adopt(model, tiny_tokenizer(), CPU, name="x").head.scale == scale


def test_a_family_with_other_logits_is_refused():
    model = tiny_model(0)
    original = model.forward

    def doubled(*args, **kwargs):
        output = original(*args, **kwargs)
        output.logits = output.logits * 2
        return output

    model.forward = doubled
    with pytest.raises(StepError) as caught:
        adopt(model, tiny_tokenizer(), CPU, name="x")
    assert str(caught.value) == (
        "a model of type 'gemma3_text' changes its logits in a way that koinize does not know; "
        "expected an output layer, a constant factor and soft-capping at most; choose another "
        "base model, or report this type"
    )


def test_a_folder_loads_and_pickled_weights_do_not(tmp_path):
    write_tiny_base(tmp_path / "base", seed=0)
    base = load_model(tmp_path / "base", "float32", "cpu", name="org/tiny")
    assert torch.equal(logits(base), logits(loaded()))
    assert (base.name, base.dtype, base.device) == ("org/tiny", torch.float32, CPU)
    assert not any(p.requires_grad for p in base.model.parameters())
    assert load_model(tmp_path / "base", "bfloat16", "cpu").dtype == torch.bfloat16
    weights = tmp_path / "base" / "model.safetensors"
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    weights.unlink()
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "base", "float32", "cpu")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'base'} cannot be loaded as a causal language model: ")
    assert text.endswith("; expected a folder with config.json, *.safetensors and a tokenizer")


def test_nothing_is_collected_while_files_are_read_and_afterwards_again():
    with uncollected(), uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="no model"), uncollected():
        raise ValueError("no model")
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()  # which is not ours to change
    finally:
        gc.enable()


def test_the_same_seed_writes_the_same_base(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_tiny_base(tmp_path / name, seed)
    read = {n: (tmp_path / n / "model.safetensors").read_bytes() for n in "abc"}
    assert read["a"] == read["b"] != read["c"]


def test_an_adapter_comes_and_goes_without_a_trace(tmp_path):
    base, folder = loaded(), adapter(tmp_path / "adapter")
    bare = logits(base)
    buffers = {name: value.clone() for name, value in base.model.named_buffers()}
    for _ in range(2):
        with with_adapter(base, folder) as same:
            assert same is base
            changed = logits(base)
        assert float((changed - bare).abs().max()) > 0.01
        assert torch.equal(logits(base), bare)
    with with_adapter(base, None):
        assert torch.equal(logits(base), bare)
    after = dict(base.model.named_buffers())
    assert all(torch.equal(value, after[name]) for name, value in buffers.items())


def test_an_adapter_takes_the_dtype_of_the_base(tmp_path):
    base, folder = loaded(), adapter(tmp_path / "adapter")
    base.model.to(torch.bfloat16)
    with with_adapter(base, folder):
        found = {p.dtype for n, p in base.model.named_parameters() if "lora_" in n}
    assert found == {torch.bfloat16}


def test_an_adapter_on_the_output_layer_counts(tmp_path):
    base = loaded()
    rows = [Example(key=str(i), language="en", prompt=f"{i}", target="yes") for i in range(4)]
    spec = TrainingSpec(epochs=4, learning_rate=0.05, batch_size=2)
    report = train(base, rows, [], LoraSpec(r=2, targets=("lm_head",)), spec, tmp_path / "head")
    assert report.losses[-1] < report.losses[0] - 0.05
    example = Example("k", "en", "1", "yes", ("yes", "no"), ("y", "n"), 0)
    bare = evaluate(base, [example], "options", EvaluationSpec())[0]["scores"]
    with with_adapter(base, tmp_path / "head"):
        tuned = evaluate(base, [example], "options", EvaluationSpec())[0]["scores"]
    assert tuned[0] > bare[0] + 0.05


def reworded(folder: Path, to: Path, **keys: object) -> Path:
    """The adapter with other words in its configuration."""
    to.mkdir()
    config = json.loads((folder / "adapter_config.json").read_text())
    (to / "adapter_config.json").write_text(json.dumps({**config, **keys}))
    (to / "adapter_model.safetensors").write_bytes(
        (folder / "adapter_model.safetensors").read_bytes()
    )
    return to


# What PEFT acts on when it loads an adapter: it rewrites the base, asks for data or imports things.
ACTED_ON = [
    *({"init_lora_weights": one} for one in ("pissa", "pissa_niter_4", "olora", "corda", "mica")),
    *({"init_lora_weights": one} for one in ("eva", "loftq", "orthogonal", "lora_ga", "no such")),
    {"auto_mapping": {"base_model_class": "x", "parent_library": "antigravity"}},
    {"loftq_config": {"loftq_bits": 4}},
    {"runtime_config": {"ephemeral_gpu_offload": True}},
    {"megatron_core": "antigravity"},
    {"target_modules": "(a|aa)+b"},
    {"ensure_weight_tying": True},
]


@pytest.mark.parametrize("words", ACTED_ON, ids=str)
def test_no_word_of_a_configuration_acts_on_the_base(tmp_path, words):
    base, folder = loaded(), adapter(tmp_path / "adapter")
    bare = logits(base)
    with with_adapter(base, folder):
        tuned = logits(base)
    with with_adapter(base, reworded(folder, tmp_path / "reworded", **words)):
        assert torch.equal(logits(base), tuned)
    assert torch.equal(logits(base), bare)
    assert not torch.equal(tuned, bare)


def test_scales_and_ranks_by_module_are_those_of_peft(tmp_path):
    from peft import PeftModel

    folder = adapter(tmp_path / "adapter")
    words = {"alpha_pattern": {"down_proj": 7}, "use_rslora": True, "lora_alpha": 3}
    reworded(folder, tmp_path / "patterns", **words)
    base, theirs = loaded(), loaded()
    PeftModel.from_pretrained(theirs.model, str(tmp_path / "patterns"))
    with with_adapter(base, tmp_path / "patterns"):
        assert torch.equal(logits(base), logits(theirs))


def test_a_base_that_changed_under_an_adapter_serves_nobody_any_more(tmp_path):
    base, folder = loaded(), adapter(tmp_path / "adapter")
    weight = base.model.get_submodule("model.layers.0.mlp.down_proj").weight
    said = "model.layers.0.mlp.down_proj the base model's own weights changed while"
    with pytest.raises(StepError, match=said), with_adapter(base, folder):
        weight.data[0, 0] += 2**-20  # one bit, where no counter of torch's notices
    for later in (None, folder):
        with pytest.raises(StepError, match=said), with_adapter(base, later):
            pass


@pytest.mark.parametrize("fault", ["shape", "names"])
def test_an_adapter_of_another_base_is_refused_and_leaves_no_trace(tmp_path, fault):
    base, folder = loaded(), adapter(tmp_path / "adapter")
    bare = logits(base)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    if fault == "shape":
        tensors = {
            name: torch.zeros(2, v.shape[1] + 1) if "lora_A" in name else v
            for name, v in tensors.items()
        }
    else:
        tensors = {name.replace("layers", "blocks"): value for name, value in tensors.items()}
    save_file(tensors, weights)
    with pytest.raises(InputError) as caught, with_adapter(base, folder):
        pass
    text = str(caught.value)
    assert text.startswith(f"{folder} cannot be put on base model 'tiny': ")
    assert text.endswith("; expected a PEFT folder whose shapes are those of this base model")
    assert torch.equal(logits(base), bare)
    with with_adapter(base, adapter(tmp_path / "good")):
        assert not torch.equal(logits(base), bare)


@pytest.mark.parametrize(
    ("lengths", "device", "before", "width"),
    [
        ([40, 65], "cuda", 0, 66),
        ([40, 65], "cpu", 0, 65),
        ([40, 64], "cuda", 0, 64),
        ([65, 65], "cuda", 0, 65),  # nothing is masked
        ([3, 3], "cuda", 62, 4),
        ([3, 3], "cuda", 63, 3),
        ([3, 1], "cuda", 63, 3),
    ],
)
def test_no_masked_pass_on_cuda_has_one_key_more_than_a_multiple_of_32(
    lengths, device, before, width
):
    assert padded_width(lengths, device, before) == width


@pytest.mark.parametrize("left", [True, False])
def test_a_column_of_padding_more_changes_nothing_that_is_read(monkeypatch, left):
    monkeypatch.setattr("koinize.model.loaded.padded_width", lambda lengths, *_: max(lengths) + 1)
    ids, mask = pad([[5, 6, 7], [8]], 0, torch.device("cpu"), left=left)
    expected = [[0, 5, 6, 7], [0, 0, 0, 8]] if left else [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert ids.tolist() == expected
    assert mask.tolist() == [[int(token > 0) for token in row] for row in expected]
