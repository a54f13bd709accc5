"""Adapters trained together are those that each would have become alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file

from koinize.errors import InputError, StepError
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.encoding import Tokens
from koinize.model.loaded import Loaded, adopt
from koinize.settings import LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import Training, TrainingReport, together, train, train_together
from koinize.train.passes import grouped
from koinize.train.schedule import Row

CPU = torch.device("cpu")
# Sums of hundreds of float32 products in another order, over some 20 steps of AdamW.
ROUNDING = 100 * torch.finfo(torch.float32).eps
WEIGHTS = "adapter_model.safetensors"


def loaded(**settings: object) -> Loaded:
    return adopt(tiny_model(1, **settings), tiny_tokenizer(), CPU, name="org/tiny", revision="r1")


def rows(language: str, count: int) -> list[Example]:
    return [
        Example(
            key=f"{language}{i}",
            language=language,
            prompt=language * (i % 5 + 1) + f" {i * i}:",
            target=" yes" if i % 2 else " no way",
            options=(" yes", " no way") if i % 3 else (),
            labels=("y", "n"),
            gold=1 - i % 2,
        )
        for i in range(count)
    ]


def several(folder: Path) -> list[Training]:
    """Four adapters that differ in all that may differ."""
    short = TrainingSpec(epochs=2, batch_size=4, learning_rate=1e-2)
    return [
        Training("en", rows("en", 10), rows("en", 3), LoraSpec(r=2, alpha=4), short, folder / "en"),
        Training(
            "de",
            rows("de", 23),
            (),
            LoraSpec(r=5, alpha=7, seed=3, targets=("v_proj", "down_proj")),
            short.model_copy(
                update={
                    "weight_decay": 0.1,
                    "schedule": "cosine",
                    "max_grad_norm": 0.1,
                    "average": 0.4,
                }
            ),
            folder / "de",
        ),
        Training(
            "ja",
            rows("ja", 7),
            [replace(row, target=" quiz") for row in rows("ja", 2)],  # so that it stops early
            LoraSpec(r=3, alpha=4, rslora=True),
            short.model_copy(update={"epochs": 9, "patience": 2, "learning_rate": 5e-2}),
            folder / "ja",
        ),
        Training(
            "sw",
            rows("sw", 5),
            (),
            LoraSpec(r=1, alpha=2),
            short.model_copy(update={"batch_size": 3, "seed": 5}),
            folder / "sw",
        ),
    ]


def alone(base: Loaded, one: Training, out: Path) -> TrainingReport:
    return train(
        base,
        one.train_examples,
        one.dev_examples,
        one.lora,
        one.settings,
        out,
        start=one.start,
    )


def digests(base: Loaded) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in base.model.state_dict().items()
    }


def apart(one: Path, other: Path) -> float:
    """The largest difference of two adapters' factors."""
    mine, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert {n: t.shape for n, t in mine.items()} == {n: t.shape for n, t in theirs.items()}
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


@pytest.fixture(params=["cpu", "accelerator"])
def policy(request, monkeypatch):
    """Passes, and steps between looks at the losses, as on the one and as on the other."""
    monkeypatch.setattr(together, "on_accelerator", lambda _: request.param == "accelerator")


@pytest.mark.parametrize(
    ("family", "batch_tokens"),
    [("gemma3", 1024), ("llama", 1024), pytest.param("gemma3", 30, marks=pytest.mark.slow)],
)
def test_each_adapter_is_what_it_is_alone(tmp_path, policy, family, batch_tokens):
    """Also where a batch takes several passes."""
    base = loaded(family=family)
    trainings = [
        replace(one, settings=one.settings.model_copy(update={"batch_tokens": batch_tokens}))
        for one in several(tmp_path / "together")
    ]
    before = digests(base)
    reports = train_together(base, trainings)
    assert digests(base) == before
    for one, report in zip(trainings, reports, strict=True):
        expected = alone(base, one, tmp_path / one.name)
        assert report.losses == pytest.approx(expected.losses, rel=ROUNDING)
        assert report.dev_losses == pytest.approx(expected.dev_losses, rel=ROUNDING)
        assert (report.dev_loss_before is None) == (not one.dev_examples)
        if one.dev_examples:
            assert report.dev_loss_before == pytest.approx(expected.dev_loss_before, rel=ROUNDING)
        same = {
            "dev_loss_before": None,
            "losses": (),
            "dev_losses": (),
            "seconds": 0.0,
            "peak_bytes": 0,
        }
        assert replace(report, **same) == replace(expected, **same)
        assert apart(one.out, tmp_path / one.name) < 0.5 * ROUNDING  # the factors are below 0.5
        assert (one.out / "adapter_config.json").read_bytes() == (
            tmp_path / one.name / "adapter_config.json"
        ).read_bytes()
    assert reports[2].kept_epoch + 2 == len(reports[2].dev_losses) < 9


@pytest.mark.slow
def test_in_a_bfloat16_base_the_masters_stay_float32(tmp_path):
    base = loaded()
    base.model.to(torch.bfloat16)
    trainings = several(tmp_path)[:2]
    for one, report in zip(trainings, train_together(base, trainings), strict=True):
        expected = alone(base, one, tmp_path / "alone" / one.name)
        # bfloat16: 8 bits; the first steps, before AdamW has made much of little differences.
        assert report.losses[:4] == pytest.approx(expected.losses[:4], rel=2**-6)
        assert {value.dtype for value in load_file(one.out / WEIGHTS).values()} == {torch.float32}


@pytest.mark.slow
def test_one_that_diverges_stops_alone_and_names_its_rows(tmp_path, policy):
    base, trainings = loaded(), several(tmp_path)
    trainings[0] = replace(
        trainings[0], settings=trainings[0].settings.model_copy(update={"learning_rate": 1e30})
    )
    before = digests(base)
    failed, *others = train_together(base, trainings)
    assert digests(base) == before
    assert isinstance(failed, StepError)
    assert str(failed) == (
        "the loss is nan and its gradient's norm nan at step 2, on the rows en2, en6, en3, en8; "
        "lower training.learning_rate, or use dtype bfloat16 or float32"
    )
    with pytest.raises(StepError) as caught:
        alone(base, trainings[0], tmp_path / "alone")
    assert str(caught.value) == str(failed)
    assert not trainings[0].out.exists()
    for one, report in zip(trainings[1:], others, strict=True):
        expected = alone(base, one, tmp_path / "alone" / one.name)
        assert report.losses == pytest.approx(expected.losses, rel=ROUNDING)


def test_unusable_input_fails_its_own_training_only(tmp_path):
    base, (en, de, ja, sw) = loaded(), several(tmp_path)
    alone(base, en, tmp_path / "start")
    trainings = [
        replace(en, train_examples=()),
        replace(de, lora=LoraSpec(targets=("no_such_layer",))),
        replace(ja, start=tmp_path / "start"),
        sw,
    ]
    empty, untargeted, unfit, report = train_together(base, trainings)
    assert str(empty) == ("there is nothing to train on; expected at least one training example")
    assert str(untargeted).startswith("lora.targets no LoRA layers fit base model 'org/tiny': ")
    assert str(unfit).startswith(f"{tmp_path / 'start'} has another shape than lora says, first ")
    assert [type(one) for one in (empty, untargeted, unfit)] == [InputError] * 3
    assert isinstance(report, TrainingReport)


def test_training_on_starts_where_the_adapter_was(tmp_path):
    base, (en, *_, sw) = loaded(), several(tmp_path)
    train_together(base, [en])
    on = replace(en, start=en.out, out=tmp_path / "on", train_examples=rows("en", 6))
    _, report = train_together(base, [sw, on])
    expected = alone(base, on, tmp_path / "alone")
    assert report.losses == pytest.approx(expected.losses, rel=ROUNDING)
    assert apart(on.out, tmp_path / "alone") < 0.5 * ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lora", "settings"),
    [
        ({"dropout": 0.2}, {}),
        ({"targets": ("v_proj", "lm_head")}, {}),
        ({}, {"adapter_dtype": "bfloat16"}),
    ],
)
def test_what_cannot_share_a_pass_is_trained_alone(tmp_path, lora, settings):
    base, (en, _, ja, _) = loaded(), several(tmp_path)
    base.model.to(torch.bfloat16)
    apart_from_all = replace(
        ja,
        lora=ja.lora.model_copy(update=lora),
        settings=ja.settings.model_copy(update=settings),
    )
    reports = train_together(base, [apart_from_all, en])
    expected = alone(base, apart_from_all, tmp_path / "alone")
    assert reports[0].losses == expected.losses
    assert (ja.out / WEIGHTS).read_bytes() == (tmp_path / "alone" / WEIGHTS).read_bytes()
    assert isinstance(reports[1], TrainingReport)


def test_progress_counts_the_steps_of_all(tmp_path):
    seen: list[tuple[int, int, float]] = []
    trainings = several(tmp_path)
    reports = train_together(loaded(), trainings, lambda *state: seen.append(state))
    steps = sum(report.steps for report in reports)
    assert seen[-1][:2] == (steps, steps)
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[0] == (4, 6 + 12 + 18 + 4, pytest.approx(sum(r.losses[0] for r in reports) / 4))


def test_layers_of_gpt2_are_trained_too(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=260, n_positions=128, n_embd=16, n_layer=2, n_head=2, initializer_range=0.2
    )
    base = adopt(GPT2LMHeadModel(config).eval(), tiny_tokenizer(), CPU, name="org/gpt2")
    base.model.requires_grad_(False)
    en, _, ja, _ = several(tmp_path)
    trainings = [en, ja]
    for one, report in zip(trainings, train_together(base, trainings), strict=True):
        expected = alone(base, one, tmp_path / "alone" / one.name)
        assert report.losses == pytest.approx(expected.losses, rel=ROUNDING)


def test_the_folder_is_the_one_that_peft_writes(tmp_path):
    base, (en, *_) = loaded(), several(tmp_path)
    train_together(base, [en])
    model = PeftModel.from_pretrained(base.model, en.out)
    model.save_pretrained(tmp_path / "peft", save_embedding_layers=False)
    model.unload()
    assert (en.out / WEIGHTS).read_bytes() == (tmp_path / "peft" / WEIGHTS).read_bytes()
    ours, theirs = (
        json.loads((folder / "adapter_config.json").read_text())
        for folder in (en.out, tmp_path / "peft")
    )
    assert {**ours, "target_modules": set(ours["target_modules"])} == {
        **theirs,
        "target_modules": set(theirs["target_modules"]),
    }


def row(length: int) -> Row:
    return Row(("en", ""), Tokens((1,) * (length - 1), ((2,),), truncated=False))


@given(
    st.lists(st.lists(st.integers(2, 60), min_size=1, max_size=6), min_size=1, max_size=9),
    st.integers(1, 500),
)
def test_passes_lose_no_rows_and_keep_to_the_budget(lengths, budget):
    shares = [(place, [row(one) for one in some]) for place, some in enumerate(lengths)]
    passes = list(grouped(shares, budget))
    assert [share for some in passes for share in some] == shares
    for some in passes:
        height = max(len(rows) for _, rows in some)
        width = max(one.tokens.longest for _, rows in some for one in rows)
        assert len(some) == 1 or len(some) * height * width <= budget
