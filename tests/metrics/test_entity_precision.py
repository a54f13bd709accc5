"""Entity precision: by hand, and by a model whose names are written down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from koinize.errors import InputError
from koinize.metrics import metrics
from koinize.metrics.entity_precision import entities
from koinize.model.judge import Encoded, JudgeSpec, Reader, config_of, load_reader
from tests.judges import write_names_judge

METRIC = metrics.get("entity-precision")
SPEC = JudgeSpec(model="ner")
LABELS = ("O", "I-PER")
NAMES = ("Anna", "anna", "Bob", "Karl", "Rom")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("judge") / "ner"
    write_names_judge(found, [*NAMES, "met", "saw", "and", "in"], NAMES, LABELS)
    return found


@pytest.fixture(scope="module")
def reader(folder: Path) -> Reader:
    return load_reader(folder, SPEC, METRIC.architecture)


def tagged(text: str, *pieces: tuple[str, str]) -> list[str]:
    """The entities of a text that these pieces make up, each with its label, after <bos>."""
    spans, end = [(0, 0)], 0
    for piece, _ in pieces:
        start = text.index(piece, end)
        end = start + len(piece)
        spans.append((start, end))
    nothing = (0,) * len(spans)
    special = (True, *(False for _ in pieces))
    item = Encoded(nothing, nothing, special, tuple(spans))
    return entities(text, item, ["B-PER", *(label for _, label in pieces)])


@pytest.mark.parametrize(
    ("text", "pieces", "found"),
    [
        # A word is labelled by its first piece, whatever the others say.
        (
            "Angela Merkel in Rom, Paris",
            [("Angela", "B-PER"), ("Mer", "I-PER"), ("kel", "O"), ("in", "O"), ("R", "B-LOC"),
                ("om", "B-LOC"), (",", "O"), ("Par", "I-LOC"), ("is", "O")],
            ["Angela Merkel", "Rom", "Paris"],
        ),
        ("kannte Rom", [("kann", "O"), ("te", "B-PER"), (" Rom", "I-LOC")], ["Rom"]),
        # Another one begins with B, or as another kind.
        ("Anna Bob Rom", [("Anna", "B-PER"), ("Bob", "B-PER"), ("Rom", "I-LOC")],
            ["Anna", "Bob", "Rom"]),
        ("Anna Bob Rom", [("Anna", "PER"), ("Bob", "PER"), ("Rom", "LOC")], ["Anna Bob", "Rom"]),
        ("Jean-Luc", [("Jean", "B-PER"), ("-", "I-PER"), ("Luc", "I-PER")], ["Jean-Luc"]),
        # Scripts without spaces: every character is a word.
        (
            "\u6771\u4eac\u3068\u5927\u962a",
            [("\u6771", "B-LOC"), ("\u4eac", "I-LOC"), ("\u3068", "O"),
                ("\u5927\u962a", "B-LOC")],
            ["\u6771\u4eac", "\u5927\u962a"],
        ),
        ("nothing here", [("nothing", "O"), ("here", "O")], []),
        ("", [], []),
    ],
)  # fmt: skip
def test_entities_by_hand(text, pieces, found):
    assert tagged(text, *pieces) == found


@pytest.mark.parametrize(
    ("prompt", "reference", "prediction", "expected"),
    [
        ("Anna met Bob in Rom", "x", "anna saw Karl and Bob", 2 / 3),
        ("Anna met Bob in Rom", "Karl", "anna saw Karl and Bob", 1.0),
        # Each as often as it is written.
        ("Anna met", "x", "Karl and Karl and Anna", 1 / 3),
        # "Anna Bob" is one entity, of which the prompt has no run; full width is the same.
        ("Anna met Bob", "x", "Anna Bob", 0.0),
        ("\uff21\uff4e\uff4e\uff41 met Bob", "x", "Anna", 1.0),
        ("Annas met", "x", "Anna", 0.0),
        ("Anna met Bob", "x", "met and saw", 1.0),
        ("Anna met Bob", "x", "", 1.0),
    ],
)
def test_a_score_by_hand(reader, prompt, reference, prediction, expected):
    row = {"key": "1", "prompt": prompt, "reference": reference, "prediction": prediction}
    (found,) = METRIC.judged(reader, SPEC, [row])
    assert found == pytest.approx(expected)


def test_texts_of_several_lengths_are_read_together(reader):
    texts = ["Karl", "met Anna and Bob in Rom", "", "Bob saw Karl"]
    rows = [
        {"key": text, "prompt": "Anna met Bob", "reference": "x", "prediction": text}
        for text in texts
    ]
    assert list(METRIC.judged(reader, SPEC, rows)) == pytest.approx([0, 2 / 3, 1, 1 / 2])


def test_a_tokenizer_that_does_not_say_where_tokens_stand_is_refused(reader):
    slow = replace(reader, tokenizer=cast("Any", SimpleNamespace(is_fast=False)))
    with pytest.raises(InputError) as refused:
        list(METRIC.judged(slow, SPEC, []))
    assert str(refused.value) == (
        "judges.entity-precision the tokenizer of ner does not say where its tokens stand; "
        "expected a model with a tokenizer.json"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"architectures": ["BertForSequenceClassification"]}, "labels no tokens; take a model of "
            "named entities (NER)"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "has no label 'O' beside others; take a "
            "model of named entities (NER), or name it in id2label of its config.json (labels "
            "there: LABEL_0, LABEL_1)"),
        ({"id2label": None}, "has no label 'O' beside others; take a model of named entities "
            "(NER), or name it in id2label of its config.json (labels there: none)"),
    ],
)  # fmt: skip
def test_what_is_no_model_of_entities_says_why(folder, tmp_path, change, said):
    config = {**json.loads((folder / "config.json").read_text()), **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert METRIC.unfit(SPEC, config_of(tmp_path)) == said
