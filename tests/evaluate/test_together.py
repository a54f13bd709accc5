"""Adapters evaluated together give the rows that each gives alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from koinize.adapter import read_header
from koinize.errors import InputError
from koinize.evaluate import evaluate
from koinize.evaluate.together import evaluate_together
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.model.loaded import Loaded, adopt, with_adapter
from koinize.model.stacked import fits
from koinize.settings import EvaluationSpec, LoraSpec, TrainingSpec
from koinize.tasks import Example
from koinize.train import train

CPU = torch.device("cpu")
# Sums of a dozen float32 log-probabilities near 5, each off by a few units in the last place.
TOLERANCE = 1e-4


def loaded(**settings: object) -> Loaded:
    return adopt(tiny_model(3, **settings), tiny_tokenizer(), CPU, name="tiny")


def choices(count: int = 7) -> list[Example]:
    words = (" a", " bb", " longer text", " 日本")
    return [
        Example(
            key=f"k{i}",
            language="en",
            prompt="word " * (i % 4) + f"row {i * i} is",
            target=words[i % 2],
            options=words[: 2 + i % 3],
            labels=tuple("ABCD"[: 2 + i % 3]),
            gold=i % 2,
        )
        for i in range(count)
    ]


def adapters(base: Loaded, folder: Path) -> list[Path | None]:
    """Of other ranks, scales and layers each, one of the output layer, and the bare base."""
    settings = TrainingSpec(epochs=2, batch_size=2, learning_rate=3e-2)
    loras = {
        "one": LoraSpec(r=2, alpha=4),
        "large": LoraSpec(r=7, alpha=5, seed=1),
        "few": LoraSpec(r=3, alpha=3, rslora=True, targets=("v_proj", "down_proj")),
        "head": LoraSpec(r=2, alpha=4, targets=("v_proj", "lm_head")),
    }
    for name, lora in loras.items():
        train(base, choices(), [], lora, settings, folder / name)
    one, large, few, head = (folder / name for name in loras)
    return [one, None, large, head, few]


def each_alone(base: Loaded, folders, settings, mode="options", examples=None):
    found = []
    for folder in folders:
        with with_adapter(base, folder):
            found.append(evaluate(base, examples or choices(), mode, settings))
    return found


@pytest.mark.parametrize("normalize", ["none", "pmi"])
@pytest.mark.parametrize("batch_tokens", [pytest.param(1, marks=pytest.mark.slow), 4096])
@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_scores_are_those_of_each_alone(tmp_path, family, batch_tokens, normalize):
    base = loaded(family=family, tie_word_embeddings=False)
    folders = adapters(base, tmp_path)
    assert [fits(base, read_header(one)) for one in folders if one] == [True, True, False, True]
    settings = EvaluationSpec(batch_tokens=batch_tokens, normalize=normalize)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    together = evaluate_together(base, folders, choices(), "options", settings)
    assert all(torch.equal(before[n], value) for n, value in base.model.state_dict().items())
    expected = each_alone(base, folders, settings)
    firsts = sorted(rows[0]["scores"][0] for rows in expected)
    assert min(b - a for a, b in pairwise(firsts)) > 100 * TOLERANCE  # each adapter matters
    for mine, theirs in zip(together, expected, strict=True):
        for row, other in zip(mine, theirs, strict=True):
            for numbers in {"scores", "unconditional"} & row.keys():
                assert row.pop(numbers) == pytest.approx(other.pop(numbers), abs=TOLERANCE)
            assert row == other


@pytest.mark.slow
def test_more_adapters_than_share_a_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("koinize.evaluate.together.AT_ONCE", 2)
    base, seen = loaded(), []
    folders = [*adapters(base, tmp_path)[:3], None, None]
    together = evaluate_together(
        base, folders, choices(), "options", EvaluationSpec(), lambda *state: seen.append(state)
    )
    expected = each_alone(base, folders, EvaluationSpec())
    for mine, theirs in zip(together, expected, strict=True):
        for row, other in zip(mine, theirs, strict=True):
            assert row["scores"] == pytest.approx(other["scores"], abs=TOLERANCE)
    assert seen[-1] == (35, 35)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.slow
def test_in_a_bfloat16_base(tmp_path):
    base = loaded()
    folders = adapters(base, tmp_path)[:3]
    base.model.to(torch.bfloat16)
    together = evaluate_together(base, folders, choices(), "options", EvaluationSpec())
    for mine, theirs in zip(together, each_alone(base, folders, EvaluationSpec()), strict=True):
        for row, other in zip(mine, theirs, strict=True):
            # bfloat16 has 8 bits, and an option is a sum over its tokens.
            assert row["scores"] == pytest.approx(other["scores"], rel=2**-6)


@pytest.mark.slow
def test_texts_are_written_adapter_by_adapter(tmp_path):
    base = loaded()
    folders = adapters(base, tmp_path)[:2]
    examples = [Example(key="k", language="en", prompt="a word", target="x")]
    settings = EvaluationSpec(max_new_tokens=5)
    assert evaluate_together(base, folders, examples, "text", settings) == each_alone(
        base, folders, settings, "text", examples
    )


@pytest.mark.slow
def test_an_adapter_of_another_base_is_named(tmp_path):
    folder = adapters(loaded(), tmp_path)[0]
    other = loaded(hidden_size=32)
    with pytest.raises(InputError) as caught:
        evaluate_together(other, [None, folder], choices(), "options", EvaluationSpec())
    assert str(caught.value).startswith(f"{folder} cannot be put on base model 'tiny': ")
