"""The training loop against a naive one with full logits, and what it promises to keep."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from koinize.errors import InputError, StepError
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.loaded import Loaded, adopt
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import NoNumberError, TrainingReport, rate, train

CPU = torch.device("cpu")
LORA = LoraSpec(r=2, alpha=4)
ONE_STEP = TrainingSpec(
    epochs=1, batch_size=64, learning_rate=1e-2, warmup_ratio=0, max_grad_norm=1e9
)


def loaded(**settings: object) -> Loaded:
    return adopt(tiny_model(1, **settings), tiny_tokenizer(), CPU, name="org/tiny", revision="r1")


def examples(count: int = 6) -> list[Example]:
    return [
        Example(
            key=f"k{i}",
            language="en",
            prompt="ab" * (i + 1) + f" {i}:",
            target=" yes" if i % 2 else " no way",
            options=(" yes", " no way") if i < 4 else (),
            labels=("y", "n"),
            gold=1 - i % 2,
        )
        for i in range(count)
    ]


def fit(
    out: Path, rows=None, training=ONE_STEP, lora=LORA, dev=(), base=None, start=None
) -> TrainingReport:
    rows = examples() if rows is None else rows
    return train(base or loaded(), rows, dev, lora, training, out, start=start)


def factors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def fingerprint(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def naive_loss(base: Loaded, model: torch.nn.Module, rows: list[Example]) -> torch.Tensor:
    """Every sequence alone, full logits, every target token's loss, one mean over all of them."""
    losses = []
    for row in rows:
        head = base.encoder.tokenizer(row.prompt).input_ids
        tail = base.encoder.tokenizer(row.target, add_special_tokens=False).input_ids
        tail = tail if row.options else [*tail, base.encoder.tokenizer.eos_token_id]
        logits = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(tail), reduction="none"))
    return torch.cat(losses).mean()


def start_and_gradients(base: Loaded, folder: Path, rows: list[Example]):
    """Loss and gradients of the naive loop for the adapter that lies in `folder`."""
    model = PeftModel.from_pretrained(base.model, folder, is_trainable=True)
    loss = naive_loss(base, model, rows)
    loss.backward()
    gradients = {
        name.replace(".default", ""): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    model.unload()
    return float(loss.detach()), gradients


@pytest.mark.parametrize("settings", [{}, {"final_logit_softcapping": 3.0}])
def test_loss_and_update_equal_a_naive_full_logits_loop(tmp_path, settings):
    base, rows = loaded(**settings), examples()
    # A first run gives factors that are not at their special start, B = 0.
    fit(tmp_path / "zero", base=base, training=ONE_STEP.model_copy(update={"learning_rate": 1e-9}))
    loss, gradients = start_and_gradients(base, tmp_path / "zero", rows)
    report = fit(tmp_path / "one", base=base)
    assert report.losses == pytest.approx([loss], rel=1e-5)
    before, after = factors(tmp_path / "zero"), factors(tmp_path / "one")
    for name, gradient in gradients.items():
        # AdamW's first step is lr * g / (|g| + 1e-8), whatever the size of g.
        expected = -1e-2 * gradient / (gradient.abs() + 1e-8)
        certain = gradient.abs() > 1e-5  # smaller gradients are float32 noise of either loop
        moved = after[name] - before[name]
        assert torch.allclose(moved[certain], expected[certain], atol=1e-4), name
    assert any("lora_B" in name and bool(g.abs().max() > 1e-5) for name, g in gradients.items())


@pytest.mark.parametrize("rslora", [False, True])
def test_training_on_takes_one_more_step_of_the_naive_loop_from_there(tmp_path, rslora):
    base, lora = loaded(), LoraSpec(r=2, alpha=5, rslora=rslora)
    several = ONE_STEP.model_copy(update={"epochs": 3})
    fit(tmp_path / "start", base=base, lora=lora, training=several)
    rows = examples(9)[6:]
    loss, gradients = start_and_gradients(base, tmp_path / "start", rows)
    report = fit(tmp_path / "on", base=base, lora=lora, rows=rows, start=tmp_path / "start")
    assert report.losses == pytest.approx([loss], rel=1e-5)
    before, after = factors(tmp_path / "start"), factors(tmp_path / "on")
    for name, gradient in gradients.items():
        # A fresh optimizer: again AdamW's first step, lr * g / (|g| + 1e-8), from where it was.
        expected = -1e-2 * gradient / (gradient.abs() + 1e-8)
        certain = gradient.abs() > 1e-5
        moved = after[name] - before[name]
        assert torch.allclose(moved[certain], expected[certain], atol=1e-4), name
    assert any(bool((g.abs() > 1e-5).any()) for g in gradients.values())


def test_a_start_whose_tensors_carry_the_name_of_the_adapter(tmp_path):
    """As a state dict saved without PEFT names them; every reader of adapters takes it."""
    fit(tmp_path / "start")
    plain = fit(tmp_path / "plain", start=tmp_path / "start")
    named = {key.replace(".weight", ".default.weight"): one
             for key, one in factors(tmp_path / "start").items()}  # fmt: skip
    save_file(named, tmp_path / "start" / "adapter_model.safetensors")
    report = fit(tmp_path / "named", start=tmp_path / "start")
    assert report.losses == plain.losses
    assert fingerprint(tmp_path / "named") == fingerprint(tmp_path / "plain")


@pytest.mark.parametrize(
    ("lora", "module"),
    [
        (LoraSpec(r=4, alpha=8), "model.layers.0.mlp.down_proj"),  # the same scale
        (LoraSpec(r=2, alpha=5), "model.layers.0.mlp.down_proj"),  # the same shapes
        (LoraSpec(r=2, alpha=4, targets=("v_proj",)), "model.layers.0.mlp.down_proj"),
    ],
)
def test_an_adapter_of_another_shape_is_no_start(tmp_path, lora, module):
    fit(tmp_path / "start")
    base = loaded()
    with pytest.raises(InputError) as caught:
        fit(tmp_path / "on", base=base, lora=lora, start=tmp_path / "start")
    assert str(caught.value) == (
        f"{tmp_path / 'start'} has another shape than lora says, first at module '{module}'; "
        "expected the same modules, ranks and scales; train from the base instead"
    )
    assert not (tmp_path / "on").exists()
    assert not any("lora" in name for name, _ in base.model.named_modules())


@pytest.mark.parametrize("batch_tokens", [1, 40])
def test_accumulation_equals_one_big_pass(tmp_path, batch_tokens):
    whole = fit(tmp_path / "whole", training=ONE_STEP.model_copy(update={"epochs": 3}))
    update = {"epochs": 3, "batch_tokens": batch_tokens}
    parts = fit(tmp_path / "parts", training=ONE_STEP.model_copy(update=update))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)


def test_long_targets_are_summed_over_pieces_of_the_head(tmp_path):
    rows = [replace(examples()[4], target="many words " * 30)]  # 331 tokens, three pieces
    report = fit(tmp_path / "out", rows=rows)
    base = loaded()
    expected = float(naive_loss(base, base.model, rows).detach())
    assert report.losses == pytest.approx([expected], rel=1e-5)
    assert report.target_tokens == 331


def test_the_same_seed_gives_the_same_bytes_in_any_order(tmp_path):
    training = TrainingSpec(epochs=2, batch_size=2)
    lora = LoraSpec(r=2, dropout=0.3)
    fit(tmp_path / "a", training=training, lora=lora)
    torch.manual_seed(99)
    fit(tmp_path / "b", rows=examples()[::-1], training=training, lora=lora)
    fit(tmp_path / "c", training=training.model_copy(update={"seed": 1}), lora=lora)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "c")


def test_the_start_of_a_depends_on_seed_and_name_only(tmp_path):
    frozen = ONE_STEP.model_copy(update={"learning_rate": 1e-12})
    fit(tmp_path / "all", training=frozen)
    fit(tmp_path / "some", training=frozen, lora=LoraSpec(r=2, alpha=4, targets=("v_proj",)))
    fit(tmp_path / "other", training=frozen, lora=LoraSpec(r=2, alpha=4, seed=7))
    every, some = factors(tmp_path / "all"), factors(tmp_path / "some")
    other = factors(tmp_path / "other")
    names = [name for name in some if "lora_A" in name]
    assert len(names) == 2
    for name in names:
        assert torch.allclose(every[name], some[name], atol=1e-9)
        assert not torch.allclose(every[name], other[name], atol=1e-3)
        assert float(every[name].abs().max()) <= 1 / every[name].shape[1] ** 0.5 + 1e-9
    assert not torch.equal(every[names[0]], every[names[1]])


def test_the_base_is_left_bit_identical_and_the_folder_is_plain_peft(tmp_path):
    base = loaded()
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    lora = LoraSpec(r=2, rslora=True, targets=("q_proj", "v_proj", "down_proj"))
    fit(tmp_path / "out", base=base, lora=lora)
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/tiny"
    assert config["revision"] == "r1"
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (2, 32.0, True)
    PeftModel.from_pretrained(base.model, tmp_path / "out").unload()


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    wild = TrainingSpec(epochs=30, learning_rate=0.1, batch_size=2, patience=2)
    dev = [replace(row, target=" quiz") for row in examples()[:3]]  # the opposite of a help
    report = fit(tmp_path / "out", training=wild, dev=dev)
    best = min(report.dev_losses)
    assert report.kept_epoch == report.dev_losses.index(best) + 1
    assert len(report.dev_losses) == report.kept_epoch + 2 < 30
    base = loaded()
    model = PeftModel.from_pretrained(base.model, tmp_path / "out")
    with torch.no_grad():
        assert float(naive_loss(base, model, dev)) == pytest.approx(best, rel=1e-4)


def test_counts(tmp_path):
    base = loaded()
    training = TrainingSpec(epochs=2, batch_size=4, max_length=20)
    seen = []
    rows = examples()
    report = train(
        base, rows, rows[:2], LORA, training, tmp_path, lambda *state: seen.append(state)
    )
    # One token per byte, <bos> before and, for generated texts (rows 4 and 5), <eos> after.
    prompts = [1 + len(row.prompt) for row in rows]
    targets = [len(row.target) + (not row.options) for row in rows]
    kept = [min(p, 20 - t) for p, t in zip(prompts, targets, strict=True)]
    assert report.target_tokens == 2 * sum(targets)
    assert report.tokens == 2 * (sum(kept) + sum(targets))
    assert report.truncated == sum(k < p for k, p in zip(kept, prompts, strict=True)) > 0
    assert (report.steps, report.examples, report.kept_epoch) == (4, 6, 2)
    assert [state[:2] for state in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [state[2] for state in seen] == list(report.losses)
    assert len(report.dev_losses) == 2
    assert report.seconds > 0
    assert report.peak_bytes > 10**7


def test_a_bfloat16_base_keeps_float32_factors(tmp_path):
    base = loaded()
    base.model.to(torch.bfloat16)
    report = fit(tmp_path / "out", base=base)
    assert {value.dtype for value in factors(tmp_path / "out").values()} == {torch.float32}
    exact = fit(tmp_path / "exact")
    assert report.losses == pytest.approx(exact.losses, rel=2**-6)  # bfloat16: 8 bits
    small = ONE_STEP.model_copy(update={"adapter_dtype": "bfloat16"})
    fit(tmp_path / "small", base=base, training=small)
    assert {value.dtype for value in factors(tmp_path / "small").values()} == {torch.bfloat16}


def test_the_learning_rate_warms_up_and_decays():
    linear = TrainingSpec(warmup_ratio=0.2)
    assert [rate(step, 10, linear) for step in range(10)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    cosine = TrainingSpec(warmup_ratio=0, schedule="cosine")
    assert [rate(step, 4, cosine) for step in (0, 2)] == pytest.approx([1, 0.5])
    constant = TrainingSpec(warmup_ratio=0, schedule="constant")
    assert rate(3, 4, constant) == 1


def test_unusable_input_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        fit(tmp_path, rows=[])
    assert str(caught.value) == (
        "there is nothing to train on; expected at least one training example"
    )
    with pytest.raises(InputError) as caught:
        fit(tmp_path, training=ONE_STEP.model_copy(update={"patience": 1}))
    assert str(caught.value) == (
        "early stopping has no dev examples to look at; give a dev split, or remove "
        "training.patience"
    )
    with pytest.raises(InputError) as caught:
        fit(tmp_path, lora=LoraSpec(targets=("no_such_layer",)))
    text = str(caught.value)
    assert text.startswith("lora.targets no LoRA layers fit base model 'org/tiny': ")
    assert text.endswith("; use 'all-linear', or names of the model's linear layers")


@pytest.mark.parametrize(
    ("lora", "training", "message"),
    [
        (
            {"targets": ("v_proj", "embed_tokens")},
            {},
            "lora.targets name the module 'model.embed_tokens', which is no linear layer; use "
            "'all-linear', or names of the model's linear layers",
        ),
        (
            {},
            {"adapter_dtype": "bfloat16"},
            "training.adapter_dtype bfloat16 factors do not go with a float32 base; use float32, "
            "or a base in bfloat16",
        ),
    ],
)
def test_settings_that_the_base_cannot_have_are_named(tmp_path, lora, training, message):
    base = loaded()
    with pytest.raises(InputError) as caught:
        fit(
            tmp_path / "out",
            base=base,
            lora=LORA.model_copy(update=lora),
            training=ONE_STEP.model_copy(update=training),
        )
    assert str(caught.value) == message
    assert not any("lora" in name for name, _ in base.model.named_modules())


def test_a_loss_that_is_no_number_says_how_far_it_came(tmp_path):
    """Six rows a step; the first step makes factors whose products overflow."""
    settings = ONE_STEP.model_copy(update={"epochs": 4, "learning_rate": 1e30, "warmup_ratio": 0.0})
    with pytest.raises(NoNumberError) as caught:
        fit(tmp_path / "out", training=settings)
    assert (caught.value.steps, caught.value.planned) == (1, 4)
    seen = fit(tmp_path / "one", training=ONE_STEP).tokens
    assert caught.value.tokens == seen > 0


def test_a_loss_that_is_no_number_stops_the_step_and_frees_the_base(tmp_path):
    base = loaded()
    with torch.no_grad():
        base.model.get_decoder().norm.weight.fill_(float("nan"))
    with pytest.raises(StepError) as caught:
        fit(tmp_path / "out", base=base)
    assert str(caught.value) == (
        "the loss is nan and its gradient's norm nan at step 1, on the rows k1, k0, k3, k2, k5, "
        "k4; lower training.learning_rate, or use dtype bfloat16 or float32"
    )
    assert not (tmp_path / "out").exists()
    assert not any("lora" in name for name, _ in base.model.named_modules())
