"""BERTScore: by hand, against the formula in plain loops, and by models of two families."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from koinize.examples.tiny.make_base import tiny_tokenizer, write_tiny_base
from koinize.metrics import metrics, score
from koinize.metrics.bert_score import f1
from koinize.model.judge import JudgeSpec, Reader, load_reader

PAIRS = (
    ("Guten Tag", "Guten Abend"),
    ("Guten Tag", "Guten Tag"),
    ("この製品", "その商品は"),
    ("a", "a much longer text that says other things"),
    ("", "something"),
    ("", ""),
)
ROUNDING = 1e-5  # of float32 sums over 16 products, in cosines near 1


def rows(pairs=PAIRS):
    return [
        {"key": str(n), "language": "de", "prediction": a, "reference": b}
        for n, (a, b) in enumerate(pairs)
    ]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, and 48 places for tokens."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("judge") / "bert"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=260,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=48,
            initializer_range=0.5,
        )
        BertModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge") / "gemma"
    write_tiny_base(folder, 3)
    return folder


def reader_of(folder: Path, layer: int) -> tuple[Reader, JudgeSpec]:
    spec = JudgeSpec(model=str(folder), layer=layer)
    return load_reader(folder, spec, "AutoModel"), spec


def scored(folder: Path, layer: int, pairs=PAIRS) -> list[float]:
    reader, spec = reader_of(folder, layer)
    return list(metrics.get("bert-score").judged(reader, spec, rows(pairs)))


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        # Cosines [[1, .6], [0, .8]]: precision (1 + .8) / 2 = recall = .9.
        ([[1, 0], [0, 1]], [[2, 0], [0.6, 0.8]], 0.9),
        # The text says half of it: precision 1, recall (1 + 0) / 2.
        ([[1, 0]], [[3, 0], [0, 1]], 2 / 3),
        # [[.6], [.8]]: precision .7, recall .8, 2 x .56 / 1.5.
        ([[0.6, 0.8], [0.8, 0.6]], [[1, 0]], 1.12 / 1.5),
        ([[1, 0]], [[-1, 0]], 0.0),
    ],
)
def test_by_hand(text, reference, expected):
    assert f1(np.array(text, float), np.array(reference, float)) == pytest.approx(expected)


def test_no_token_meets_no_token_but_none():
    nothing, one = np.zeros((0, 2)), np.ones((1, 2))
    assert [f1(nothing, nothing), f1(nothing, one), f1(one, nothing)] == [1.0, 0.0, 0.0]


def oracle(model, tokenizer, layer: int, text: str, reference: str) -> float:
    """Equation 1 of the paper in plain loops: one text at a time, without padding or batches."""

    def vectors(one: str) -> list[list[float]]:
        ids = tokenizer(one, add_special_tokens=False).input_ids
        whole = tokenizer(one).input_ids
        with torch.no_grad():
            states = model(torch.tensor([whole]), output_hidden_states=True).hidden_states[layer]
        return states[0, len(whole) - len(ids) :].tolist()  # after <bos>, which alone is special

    def cosine(a: list[float], b: list[float]) -> float:
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    ours, theirs = vectors(text), vectors(reference)
    if not ours or not theirs:
        return float(len(ours) == len(theirs))
    precision = sum(max(cosine(a, b) for b in theirs) for a in ours) / len(ours)
    recall = sum(max(cosine(a, b) for a in ours) for b in theirs) / len(theirs)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_a_models_scores_are_those_of_the_formula(family, layer, request):
    folder = request.getfixturevalue(family)
    reader, _ = reader_of(folder, layer)
    expected = [oracle(reader.model, reader.tokenizer, layer, *pair) for pair in PAIRS]
    assert scored(folder, layer) == pytest.approx(expected, abs=ROUNDING)
    assert len({round(one, 3) for one in expected}) > 4  # else it would say nothing


@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_batches_change_nothing_but_the_rounding(family, request, monkeypatch):
    folder = request.getfixturevalue(family)
    together = scored(folder, 2)
    monkeypatch.setattr("koinize.model.judge.PASS_TOKENS", 1)
    monkeypatch.setattr("koinize.metrics.bert_score.TOGETHER", 2)
    assert scored(folder, 2) == pytest.approx(together, abs=ROUNDING)


def test_what_does_not_fit_is_cut_and_counted(encoder):
    long, cut = "x" * 100, "x" * 47  # and <bos>
    reader, spec = reader_of(encoder, 1)
    pairs = rows([(long, "abc"), (cut, "abc")])
    ours, same = metrics.get("bert-score").judged(reader, spec, pairs)
    assert (ours, reader.cut, reader.room) == (pytest.approx(same, abs=ROUNDING), 2, 48)


def test_a_score_is_its_rows_mean_and_names_its_judge():
    metric = metrics.get("bert-score").by({"de": "abcdef123456789", "en": "abcdef123456789"})
    judged = [
        {**row, "bert-score": {"judge": "abcdef123456789", "score": one}}
        for row, one in zip(rows()[:2], (0.5, 1.0), strict=True)
    ]
    found = score(metric, judged, resamples=10)
    assert found.value == pytest.approx(75.0)
    assert found.signature.startswith(
        "bert-score|judge:abcdef123456|idf:no|rescaled:no|special:no|boot:10|"
    )
