"""Classify: labels, verbalizers, and rows whose label is not in the set."""

import pytest
from pydantic import ValidationError

from koinize.data import Row
from koinize.errors import ManyErrors
from koinize.settings import EvaluationSection, EvaluationSpec
from koinize.tasks.classify import Classify

PER_LANGUAGE = {"en": {"good": " fine", "bad": " poor"}, "ja": {"bad": "悪い", "good": "良い"}}


def example(task: Classify, columns: dict[str, object], language: str = "en"):
    (one,) = task.examples([Row(columns, "f:1")], language)
    return one


def classify(**settings) -> Classify:
    return Classify(**({"labels": ("good", "bad"), "prompt": "{text}"} | settings))


def test_the_labels_are_the_options_in_the_order_of_the_task():
    one = example(classify(), {"text": "a", "label": "bad"})

    assert one.options == (" good", " bad")
    assert (one.labels, one.gold, one.target) == (("good", "bad"), 1, " bad")
    assert (one.language, one.prompt) == ("en", "a")


def test_a_space_before_the_label_is_never_doubled():
    assert example(classify(prompt="{text}: "), {"text": "a", "label": "bad"}).target == "bad"


@pytest.mark.parametrize(
    ("verbalizers", "language", "options"),
    [
        ({"bad": "-", "good": "+"}, "en", ("+", "-")),
        (PER_LANGUAGE, "en", (" fine", " poor")),
        (PER_LANGUAGE, "ja", ("良い", "悪い")),
    ],
)
def test_verbalizers_are_taken_as_they_are_written(verbalizers, language, options):
    one = example(classify(verbalizers=verbalizers), {"text": "a", "label": "good"}, language)

    assert one.options == options
    assert (one.target, one.labels) == (options[0], ("good", "bad"))


def test_labels_may_be_numbers():
    task = classify(labels=(0, 1), verbalizers={0: " no", 1: " yes"})

    for label in (1, "1"):
        assert example(task, {"text": "a", "label": label}).target == " yes"


@pytest.mark.parametrize("completion", ["good", " good\n", "fine", " fine"])
def test_without_a_template_the_completion_is_the_label_or_its_verbalizer(completion):
    task = classify(prompt=None, verbalizers=PER_LANGUAGE)

    assert example(task, {"prompt": "a:", "completion": completion}).target == " fine"


def test_labels_outside_the_set():
    rows = [
        Row({"text": "a", "label": "godo"}, "en.csv:2"),
        Row({"text": "a", "label": " good"}, "en.csv:3"),
        Row({"text": "a", "label": 7}, "en.csv:4"),
        Row({"text": "a"}, "en.csv:5"),
        Row({"text": "a", "label": ["good"]}, "en.csv:6"),
    ]

    with pytest.raises(ManyErrors) as caught:
        classify().examples(rows, "en")

    known = "which is no label of the task; expected one of: good, bad"
    assert str(caught.value).splitlines() == [
        f"en.csv:2 the column 'label' holds 'godo', {known}; did you mean 'good'?",
        f"en.csv:3 the column 'label' holds ' good', {known}; did you mean 'good'? "
        "It has U+0020 SPACE too many",
        f"en.csv:4 the column 'label' holds '7', {known}",
        "en.csv:5 there is no column 'label', which the task names; expected one of: text",
        "en.csv:6 the column 'label' holds a list; expected text or a number",
    ]


def test_a_completion_outside_the_set_is_named_by_its_own_column():
    with pytest.raises(ManyErrors) as caught:
        example(classify(prompt=None), {"prompt": "a:", "completion": "gud"})

    assert str(caught.value) == (
        "f:1 the column 'completion' holds 'gud', which is no label of the task; "
        "expected one of: good, bad"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ("good",)}, "Tuple should have at least 2 items after validation, not 1"),
        ({"labels": ("good", "bad", "good")}, "'good' stands twice"),
        ({"labels": ("caf\u00e9", "cafe\u0301")}, "'caf\u00e9' stands twice"),
        ({"labels": ("good", "bad", "")}, "String should have at least 1 character"),
        ({"labels": ("good", " good")}, "labels gives two labels the same text 'good'"),
        ({"labels": ("good", " ")}, "labels has an empty text, which no model can score"),
        (
            {"verbalizers": {" en": {"good": "+", "bad": "-"}}},
            "' en' is no language; write its code, without white space",
        ),
        ({"verbalizers": {"good": " +"}}, "verbalizers has no text for the label 'bad'"),
        (
            {"verbalizers": {"good": "+", "bad": "-", "mixed": "0"}},
            "verbalizers names 'mixed', which is no label; write good, bad",
        ),
        (
            {"verbalizers": {"en": {"good": " +", "bad": "+ "}}},
            "verbalizers.en gives two labels the same text '+'",
        ),
        (
            {"verbalizers": {"en": {"good": "+", "bad": " "}}},
            "verbalizers.en has an empty text, which no model can score",
        ),
        (
            {"verbalizers": {"good": "+", "en": {"good": "+", "bad": "-"}}},
            "verbalizers mixes labels and languages; give one or the other",
        ),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    with pytest.raises(ValidationError) as caught:
        classify(**settings)

    (error,) = caught.value.errors()
    assert error["msg"].removeprefix("Value error, ") == message


def test_free_answers_are_for_test_and_bring_their_metrics():
    section = EvaluationSection(normalize="length")
    free, plain = classify(free=True), classify()

    assert free.evaluation(section, "dev") == plain.evaluation(section, "test")
    assert free.evaluation(section, "test") == EvaluationSpec(
        normalize="length", free=True, max_new_tokens=16, stop=("\n",)
    )
    assert (free.writes, plain.writes) == (True, False)
    added = ("free-accuracy", "free-macro-f1", "parsed")
    assert free.metrics == (*plain.metrics, *added)
    apart = classify(free=True, verbalizers=PER_LANGUAGE)
    assert apart.metrics == (*plain.metrics, *added, "label-language")
    assert apart.label_texts == {"en": (" fine", " poor"), "ja": ("悪い", "良い")}
    assert classify(free=True, metrics=("recall",)).metrics == ("recall",)
    assert classify(verbalizers={"good": "+", "bad": "-"}).label_texts == {}
