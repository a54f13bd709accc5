"""What was learnt through a chat template comes out again through it, in every script."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from koinize.evaluate import evaluate
from koinize.examples.tiny.make_base import tiny_model
from koinize.model.loaded import Loaded, adopt, with_adapter
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train
from tests.model.chat_templates import SHAPES, TEXTS, tokenizer

LORA = LoraSpec(r=16, alpha=32, targets=("q_proj", "v_proj", "o_proj", "up_proj", "lm_head"))
TRAINING = TrainingSpec(epochs=120, learning_rate=1e-2, batch_size=4, max_length=256)
SETTINGS = EvaluationSpec(max_length=256, max_new_tokens=40)


def loaded(shape: str) -> Loaded:
    made = tokenizer("first", SHAPES[shape].template)
    model = tiny_model(0, family="llama", vocab_size=len(made), hidden_size=48, head_dim=24)
    return adopt(model.requires_grad_(False), made, torch.device("cpu"), name="tiny")


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["Llama 2", "Qwen 3", "a line break, then the end", "gpt-oss"])
def test_texts_and_options_that_were_learnt_by_heart(tmp_path: Path, shape: str) -> None:
    """Four rows, of which one has a conversation before it; each script has its own answer."""
    base = loaded(shape)
    scripts = ("Latin", "Japanese", "Korean", "emoji")
    rows = [Example(one, one, *TEXTS[one]) for one in scripts]
    before = (("system", "s"), ("user", "Hm?"), ("assistant", "no"), ("user", rows[0].prompt))
    rows[0] = replace(rows[0], turns=before)
    report = train(base, rows, [], LORA, TRAINING, tmp_path / "texts")
    assert report.losses[-1] < 0.02
    answers = tuple(row.target for row in rows)
    choices = [replace(row, options=answers, labels=scripts, gold=n) for n, row in enumerate(rows)]
    with with_adapter(base, tmp_path / "texts") as tuned:
        written = evaluate(tuned, rows, "text", SETTINGS)
        chosen = evaluate(tuned, choices, "options", SETTINGS)
    assert [row["prediction"] for row in written] == list(answers)
    assert [row["prediction"] for row in chosen] == list(scripts)
