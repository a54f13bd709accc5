"""Hallucination by entailment: the threshold by hand, and facts that were corrupted."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from math import comb, sqrt
from pathlib import Path

import pytest
import torch

from koinize.metrics import CalibratedMetric, metrics, score
from koinize.model.judge import JudgeSpec, Reader, config_of, load_reader
from tests.judges import write_overlap_judge

PEOPLE = [f"person{n}" for n in range(12)]
PLACES = [f"place{n}" for n in range(12)]
NEW = [f"new{n}" for n in range(12)]  # what no source says
LABELS = ("contradiction", "neutral", "Entailment")
METRIC = metrics.get("not-hallucinated")
ROUNDING = 1e-6  # of float32 probabilities


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("judge") / "nli"
    write_overlap_judge(found, [*PEOPLE, *PLACES, *NEW, "lives", "in"], LABELS)
    return found


@pytest.fixture(scope="module")
def reader(folder: Path) -> Reader:
    return load_reader(folder, spec(), METRIC.architecture)


def spec(false_alarm: float | None = None) -> JudgeSpec:
    return JudgeSpec(model="nli", false_alarm=false_alarm)


def row(prompt: str, prediction: str) -> dict[str, str]:
    return {"key": "1", "prompt": prompt, "prediction": prediction, "reference": "x"}


def probabilities(reader: Reader, pairs: list[tuple[str, str]]) -> list[float]:
    return list(METRIC.judged(reader, spec(), [row(*pair) for pair in pairs]))


def facts(draw: random.Random, corrupted: float = 0.0) -> tuple[str, str]:
    """A source of ten facts, and a text of some of them of which up to half the places are not its
    own anyway, as references of real data are loose; then more of them, at this rate.
    """
    people, places = draw.sample(PEOPLE, 10), draw.sample(PLACES, 10)
    told = draw.sample(range(10), draw.randint(3, 10))
    loose = draw.random() / 2
    said = [
        (people[one], draw.choice(NEW) if draw.random() < loose else places[one]) for one in told
    ]
    said = [(who, draw.choice(NEW) if draw.random() < corrupted else where) for who, where in said]
    source, text = (
        " ".join(f"{who} lives in {where}" for who, where in some)
        for some in (zip(people, places, strict=True), said)
    )
    return source, text


@pytest.mark.parametrize(
    ("references", "alarm", "place"),
    [
        (19, 0.05, 1),  # 20 x .05 = 1
        (38, 0.05, 1),  # 39 x .05 = 1.95
        (39, 0.05, 2),
        (99, 0.29, 29),  # and not 28, for 100 x .29 is 28.999... in binary
        (100, 0.07, 7),
        (4, 0.2, 1),
        (3, 0.5, 2),
    ],
)
def test_the_threshold_is_the_conformal_one(references, alarm, place):
    scores = [one / 1000 for one in range(1, references + 1)]
    random.Random(0).shuffle(scores)
    assert METRIC.threshold(spec(alarm), scores) == place / 1000


@pytest.mark.parametrize(("alarm", "fewest"), [(None, 19), (0.05, 19), (0.1, 9), (0.3, 3)])
def test_too_few_references_set_none(alarm, fewest):
    assert METRIC.too_few(spec(alarm), fewest) == ""
    assert METRIC.too_few(spec(alarm), fewest - 1).startswith(
        f"too few for not-hallucinated: a false-alarm rate of {alarm or 0.05:g} takes {fewest}; "
    )
    with pytest.raises(ValueError, match=f"{fewest - 1} references are too few"):
        METRIC.threshold(spec(alarm), [0.5] * (fewest - 1))


def test_right_texts_are_called_wrong_as_often_as_stated():
    """With n references the expected rate is floor((n + 1) alarm) / (n + 1), exactly."""
    draw, times, n, alarm = random.Random(0), 4000, 30, 0.1
    wrong = 0
    for _ in range(times):
        *references, new = (draw.random() for _ in range(n + 1))
        wrong += new < METRIC.threshold(spec(alarm), references)
    rate = 3 / 31
    assert wrong / times == pytest.approx(rate, abs=3 * sqrt(rate * (1 - rate) / times))


@pytest.mark.parametrize(("n", "alarm"), [(2, 0.4), (19, 0.05), (60, 0.05), (200, 0.1)])
def test_how_many_are_called_wrong_at_worst(n, alarm):
    """At a rate x, at least k of n references are below with the probability of a binomial sum."""
    x, k = METRIC.at_worst(spec(alarm), n), int((n + 1) * alarm + ROUNDING)
    fewer = sum(comb(n, i) * x**i * (1 - x) ** (n - i) for i in range(k))
    assert fewer == pytest.approx(0.05)
    assert x > alarm


def test_what_is_like_the_reference_that_sets_the_threshold_is_not_below_it():
    found = [METRIC.passed(0.5 + one, 0.5) for one in (-1e-3, -1e-6, 0, 1e-6, 1e-3)]
    assert found == [0, 1, 1, 1, 1]


def test_a_probability_is_the_models_of_entailment(reader):
    pairs = [facts(random.Random(n), n / 4) for n in range(5)]
    expected = []
    for one in pairs:
        with torch.no_grad():
            logits = reader.model(**reader.tokenizer(*one, return_tensors="pt")).logits
        expected.append(float(logits.softmax(-1)[0, 2]))  # "Entailment"
    assert probabilities(reader, pairs) == pytest.approx(expected, abs=ROUNDING)
    assert len({round(one, 3) for one in expected}) > 2  # else it would say nothing


def rate_of(metric: CalibratedMetric, found: list[float], threshold: float) -> float:
    rows = [
        row("a", "b") | {metric.name: {"judge": "", "score": metric.passed(one, threshold)}}
        for one in found
    ]
    return 100 - score(metric, rows, resamples=2).value


@pytest.mark.slow
def test_the_rate_moves_when_facts_are_corrupted(reader):
    draw, alarm = random.Random(1), 0.1
    references = probabilities(reader, [facts(draw) for _ in range(200)])
    threshold = METRIC.threshold(spec(alarm), references)
    rates = [
        rate_of(METRIC, probabilities(reader, [facts(draw, rate) for _ in range(300)]), threshold)
        for rate in (0.0, 0.3, 0.6, 1.0)
    ]
    # Of clean texts at most the stated share, up to the chance of both samples; ties take from it.
    chance = 100 * 3 * sqrt(alarm * (1 - alarm) * (1 / 200 + 1 / 300))
    assert 1 < rates[0] <= 100 * alarm + chance
    assert rates == sorted(rates)
    assert rates[1] > rates[0] + 10
    assert rates[3] > 95


def test_silence_states_nothing(reader):
    assert probabilities(reader, [("person1 lives in place1", " ")]) == [1.0]


def test_the_longer_of_source_and_text_loses_its_end_and_is_counted(reader):
    long, short = "person1 " * 300, "lives in"
    cut = reader.cut
    found = probabilities(reader, [(long + short, short), (short, short)])
    assert reader.cut - cut == 1  # the source's end, where the text stands, was not read
    assert found[0] < 0.2 < 0.9 < found[1]
    (one,) = reader.encode([short], [long])
    assert len(one.ids) == 256
    assert sum(one.types) == 253  # all but <bos> and the source are the text's


def decoder(folder: Path) -> Iterator[float]:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from koinize.examples.tiny.make_base import tiny_tokenizer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = {0: "entailment", 1: "not_entailment"}
        shape = {"vocab_size": 260, "hidden_size": 8, "intermediate_size": 8}
        layers = {"num_hidden_layers": 1, "num_attention_heads": 1, "initializer_range": 0.5}
        config = LlamaConfig(**shape, **layers, id2label=labels, pad_token_id=None)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    reader = load_reader(folder, spec(), METRIC.architecture)
    pairs = [("A source", "a text"), ("Another, longer source", "a text")]
    yield from probabilities(reader, pairs)
    yield from (probabilities(reader, [one])[0] for one in pairs)


def test_a_decoder_knows_where_its_text_ends_beside_longer_ones(tmp_path):
    first, second, *alone = decoder(tmp_path / "llama")
    assert [first, second] == pytest.approx(alone, abs=ROUNDING)
    assert first != pytest.approx(second, abs=100 * ROUNDING)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"id2label": {"0": "entailment", "1": "not_entailment"}}, ""),
        ({"architectures": ["BertModel"]}, "classifies no texts; take a model of entailment (NLI)"),
        ({"architectures": None}, "classifies no texts; take a model of entailment (NLI)"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "has no label 'entailment', or several; "
            "take a model of entailment (NLI), or name it in id2label of its config.json (labels "
            "there: LABEL_0, LABEL_1)"),
        ({"id2label": ["entailment"]}, "has no label 'entailment', or several; take a model of "
            "entailment (NLI), or name it in id2label of its config.json (labels there: none)"),
    ],
)  # fmt: skip
def test_what_is_no_model_of_entailment_says_why(folder, tmp_path, change, said):
    config = {**json.loads((folder / "config.json").read_text()), **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert METRIC.unfit(spec(), config_of(tmp_path)) == said
