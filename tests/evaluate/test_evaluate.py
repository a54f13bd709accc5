"""Scores and texts of `evaluate` against one-at-a-time full-logits oracles and HF generate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from koinize.errors import InputError
from koinize.evaluate import evaluate
from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer
from koinize.metrics import metrics, score
from koinize.model.encoding import buckets
from koinize.model.loaded import Loaded, adopt
from koinize.settings import EvaluationSpec
from koinize.tasks import Example

CPU = torch.device("cpu")
# Sums of a dozen float32 log-probabilities near 5, each off by a few units in the last place.
TOLERANCE = 1e-4


def loaded(family: str = "gemma3", **settings: object) -> Loaded:
    return adopt(tiny_model(3, family=family, **settings), tiny_tokenizer(), CPU, name="tiny")


def choices(count: int = 9) -> list[Example]:
    words = ("a", "bb", "longer text", "日本", "b")
    return [
        Example(
            key=f"k{i}",
            language="en",
            prompt="word " * (i % 4) + f"row {i * i} is",
            target=" a",
            options=tuple(f" {word}" for word in words[: 2 + i % 4]),
            labels=tuple("ABCDE"[: 2 + i % 4]),
            gold=i % 2,
        )
        for i in range(count)
    ]


def oracle_score(base: Loaded, prompt: str, option: str) -> float:
    """Full logits of one unpadded sequence, one log-softmax per position."""
    head = base.encoder.tokenizer(prompt).input_ids
    tail = base.encoder.tokenizer(option, add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = base.model(torch.tensor([head + tail])).logits[0].log_softmax(dim=-1)
    return sum(float(logits[len(head) - 1 + i, token]) for i, token in enumerate(tail))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {}),
        ("gemma3", {}),
        ("gemma3", {"final_logit_softcapping": 2.0}),
        ("gemma3", {"sliding_window": 6}),
    ],
)
@pytest.mark.parametrize("batch_tokens", [1, 100, 4096])
def test_option_scores_equal_the_oracle(family, settings, batch_tokens):
    base = loaded(family, **settings)
    examples = choices()
    rows = evaluate(base, examples, "options", EvaluationSpec(batch_tokens=batch_tokens))
    for example, row in zip(examples, rows, strict=True):
        expected = [oracle_score(base, example.prompt, option) for option in example.options]
        assert row["scores"] == pytest.approx(expected, abs=TOLERANCE)
        assert row["lengths"] == [len(option.encode()) for option in example.options]
        best = max(range(len(expected)), key=expected.__getitem__)
        assert (row["prediction"], row["gold"]) == (
            example.labels[best],
            example.labels[example.gold],
        )
        assert row["labels"] == list(example.labels)
        assert set(row) == {
            *("key", "language", "gold", "prediction", "labels", "scores", "lengths"),
        }


@pytest.mark.parametrize("settings", [{}, {"sliding_window": 6}])
def test_the_column_that_cuda_needs_changes_no_answer(monkeypatch, settings):
    base, asked = loaded(**settings), EvaluationSpec(max_new_tokens=8)

    def answers() -> list[object]:
        scored = [row["scores"] for row in evaluate(base, choices(), "options", asked)]
        return [*scored, *(row["prediction"] for row in evaluate(base, writing(), "text", asked))]

    expected = answers()

    def wider(lengths: list[int], _device: str, before: int = 0) -> int:
        return max(lengths) + (before > 0 or min(lengths) < max(lengths))

    monkeypatch.setattr("koinize.model.loaded.padded_width", wider)
    for found, one in zip(answers(), expected, strict=True):
        assert found == (one if isinstance(one, str) else pytest.approx(one, abs=TOLERANCE))


def test_single_token_options_need_one_pass_only():
    base = loaded()
    passes = []
    base.backbone.register_forward_hook(lambda *_: passes.append(1))
    example = replace(choices()[0], options=("a", "b"), labels=("A", "B"))
    evaluate(base, [example] * 5, "options", EvaluationSpec())
    assert len(passes) == 1


def test_normalization_by_length_and_by_pmi():
    base, examples = loaded(), choices()
    by_length = evaluate(base, examples, "options", EvaluationSpec(normalize="length"))
    by_pmi = evaluate(base, examples, "options", EvaluationSpec(normalize="pmi"))
    for example, one, other in zip(examples, by_length, by_pmi, strict=True):
        scores = [oracle_score(base, example.prompt, option) for option in example.options]
        alone = [oracle_score(base, "", option) for option in example.options]
        assert other["unconditional"] == pytest.approx(alone, abs=TOLERANCE)
        means = [s / len(o.encode()) for s, o in zip(scores, example.options, strict=True)]
        gains = [s - a for s, a in zip(scores, alone, strict=True)]
        assert one["prediction"] == example.labels[means.index(max(means))]
        assert other["prediction"] == example.labels[gains.index(max(gains))]
    # Whatever decided, and in whichever order options stand: rows say which score is whose.
    normalized, accuracy = metrics.get("accuracy-normalized"), metrics.get("accuracy")
    expected = score(accuracy, by_length, resamples=2).value
    assert score(normalized, by_pmi, resamples=2).value == expected


def test_a_bfloat16_head_does_not_tie_options():
    base = loaded()
    base.model.to(torch.bfloat16)
    rows = evaluate(base, choices(), "options", EvaluationSpec())
    hidden = torch.randn(3, base.model.config.hidden_size, dtype=torch.bfloat16)
    tokens, places = torch.tensor([7, 8, 9]), torch.tensor([0, 1, 2])
    weight = base.model.get_output_embeddings().weight
    exact = (hidden.double() * weight[tokens].double()).sum(dim=-1)
    ours = base.head.at(hidden, base.head(hidden), places, tokens)
    assert ours.double().tolist() == pytest.approx(exact.tolist(), rel=1e-5, abs=1e-6)
    assert all(len(set(row["scores"])) == len(row["scores"]) for row in rows)


def writing(count: int = 7) -> list[Example]:
    return [
        Example(key=f"k{i}", language="de", prompt=f"Satz {i * 7}" * (i + 1), target="x")
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("family", "settings"), [("llama", {}), ("gemma3", {}), ("gemma3", {"sliding_window": 6})]
)
@pytest.mark.parametrize("batch_tokens", [1, 60, 4096])
def test_texts_equal_hugging_face_greedy_generation(family, settings, batch_tokens):
    base = loaded(family, **settings)
    # A random model hardly ever ends a text by itself: let one token in nine end it.
    base.model.generation_config.eos_token_id = [2, *range(10, 260, 9)]
    base = adopt(base.model, base.encoder.tokenizer, CPU, name="tiny")
    examples = writing()
    spec = EvaluationSpec(batch_tokens=batch_tokens, max_new_tokens=12)
    rows = evaluate(base, examples, "text", spec)
    counts = set()
    for example, row in zip(examples, rows, strict=True):
        ids = torch.tensor([base.encoder.tokenizer(example.prompt).input_ids])
        out = base.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        kept = [int(token) for token in out if int(token) not in base.encoder.end_tokens]
        text = base.encoder.tokenizer.decode(kept, skip_special_tokens=True).strip()
        assert row == {
            "key": example.key,
            "language": "de",
            "prompt": example.prompt,
            "reference": "x",
            "prediction": text,
            "tokens": len(kept),
        }
        counts.add(len(kept))
    assert len(counts) > 1  # else no batch ever shrinks


def test_a_stop_string_ends_the_text_before_it():
    base, examples = loaded(), writing()
    free = evaluate(base, examples, "text", EvaluationSpec(max_new_tokens=12))
    whole = free[0]["prediction"]
    stop = whole[3:5]
    cut = evaluate(base, examples, "text", EvaluationSpec(max_new_tokens=12, stop=(stop,)))
    assert cut[0]["prediction"] == whole.partition(stop)[0].strip()
    assert cut[0]["tokens"] < free[0]["tokens"]


def test_progress_counts_every_example_and_the_order_is_kept():
    seen = []
    rows = evaluate(
        loaded(),
        choices(),
        "options",
        EvaluationSpec(batch_tokens=64),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i + 1, 9) for i in range(9)]
    assert [row["key"] for row in rows] == [f"k{i}" for i in range(9)]
    assert evaluate(loaded(), [], "options", EvaluationSpec()) == []


def test_an_example_without_options_is_named():
    with pytest.raises(InputError) as caught:
        evaluate(loaded(), writing(1), "options", EvaluationSpec())
    assert str(caught.value) == "example k0 there are no options to choose from"


def test_buckets_respect_the_budget_and_lose_nothing():
    items = [3, 9, 1, 4, 12, 5]
    batches = list(buckets(items, int, 12))
    assert batches == [[12], [9], [5, 4], [3, 1]]


def test_cut_prompts_are_counted_in_a_warning(caplog):
    base, examples = loaded(), writing()
    evaluate(base, examples, "text", EvaluationSpec(max_length=40, max_new_tokens=2))
    long = sum(1 + len(example.prompt) > 38 for example in examples)
    expected = f"{long} of 7 prompts lost tokens from their middle to max_length = 40"
    assert [record.message for record in caplog.records] == [expected]
