"""What was answered where labels are fixed: counts, confusions, and systems with one answer."""

from dataclasses import replace
from math import comb

import pytest

from koinize.report import Evaluation, System, TaskInput
from koinize.report.blocks import Paragraph, Table
from koinize.report.collapsed import collapses, confusion, sign_test
from koinize.report.quality import Judged
from koinize.report.render import sections

TASK = TaskInput(
    name="t",
    kind="classify",
    metrics=("accuracy",),
    labels=("a", "b", "c"),
    languages=("de",),
    margins={},
    reference="COMB",
    systems=[
        System("BASE", "base"),
        System("COMB", "combined"),
        System("m", "candidate", chosen=True),
        System("n", "candidate"),
    ],
    evaluations=[],
)


def answering(system, given, right, language="de"):
    """An evaluation of a system that gave these answers where those were right."""
    rows = [
        {"key": str(key), "gold": gold, "prediction": answer}
        for key, (answer, gold) in enumerate(zip(given, right, strict=True))
    ]
    return Evaluation("t", system, language, "test", rows, "s")


def test_the_sign_test_counts_throws_of_a_coin():
    for more in range(12):
        for fewer in range(12):
            ways = sum(comb(more + fewer, heads) for heads in range(more, more + fewer + 1))
            assert sign_test(more, fewer) == pytest.approx(ways / 2 ** (more + fewer), rel=1e-12)
    assert sign_test(30_000, 0) == 0.0  # below what a float holds, and at once


def test_counts_of_the_chosen_merge_and_of_the_reference():
    evaluations = [answering("m", "aabc", "abbb"), answering("COMB", "abbb", "abbb")]
    task = replace(TASK, evaluations=[*evaluations, answering("n", "cccc", "abbb")])
    found = Judged(task).results()["answers"]
    assert found == [
        # a: answered a; b: answered a, b and c once each; nothing has the label c
        {"system": "m", "language": "de", "counts": [[1, 0, 0], [1, 1, 1], [0, 0, 0]]},
        {"system": "COMB", "language": "de", "counts": [[1, 0, 0], [0, 3, 0], [0, 0, 0]]},
    ]


def test_no_counts_where_no_labels_are_fixed():
    task = replace(TASK, labels=(), evaluations=[answering("m", "ab", "ab")])
    assert Judged(task).results()["answers"] == []
    assert list(collapses(task)) == []


def test_confusions_add_up_to_the_rows():
    rows = answering("m", "abcabcaab", "aabbccabc").rows
    assert sum(map(sum, confusion("abc", rows))) == 9


@pytest.mark.parametrize(
    ("given", "right", "alarm"),
    [
        ("a" * 12, "a" * 6 + "bbbccc", True),  # six rows of one kind: 1/64 < .025
        ("a" * 10, "a" * 5 + "bbbcc", False),  # five: 1/32
        ("a" * 3, "abc", False),
        ("a" * 90 + "b" * 10, "a" * 40 + "b" * 60, False),  # 90 % is not more than 90 %
        ("a" * 91 + "b" * 9, "a" * 40 + "b" * 60, True),
        ("a" * 950 + "b" * 50, "a" * 900 + "b" * 100, False),  # half of the rows of b
        ("a" * 951 + "b" * 49, "a" * 900 + "b" * 100, True),
        ("a" * 95 + "b" * 5, "a" * 95 + "b" * 5, False),  # the rows are so
    ],
)
def test_one_answer_for_nearly_everything(given, right, alarm):
    found = list(collapses(replace(TASK, evaluations=[answering("m", given, right)])))
    assert [one["label"] for one in found] == ["a"] * alarm


def test_the_more_places_are_looked_at_the_more_it_takes():
    """Six rows of one kind: 1/64 is below .025, and above half of it."""
    one, other = (answering(name, "a" * 12, "a" * 6 + "b" * 6) for name in ("m", "COMB"))
    assert len(list(collapses(replace(TASK, evaluations=[one])))) == 1
    assert list(collapses(replace(TASK, evaluations=[one, other]))) == []


def test_who_is_looked_at_and_what_is_found():
    """The chosen merge and what is trained; a base model or a candidate that lost is not."""
    collapsed = [answering(name, "b" * 40, "ab" * 20) for name in ("BASE", "COMB", "m", "n")]
    found = list(collapses(replace(TASK, evaluations=collapsed)))
    common = {"language": "de", "label": "b", "times": 40, "right": 20, "n": 40}
    # Twenty rows answered b that are not, none the other way: 2 to the power of -20.
    assert found == [
        {"system": one, **common, "p_value": pytest.approx(2**-20)} for one in ("COMB", "m")
    ]


def test_the_section_shows_truth_and_answers_and_folds_the_confusions(realistic):
    counts, ours, theirs = sections.get("answers").data(realistic)
    (task,) = realistic["tasks"]
    assert counts.columns == ("language", "negative", "neutral", "positive")
    first = next(one for one in task["answers"] if one["language"] == "de")
    truth, answered = ([int(one.text) for one in row[1:]] for row in counts.rows[:2])
    assert truth == [sum(row) for row in first["counts"]]
    assert answered == [sum(row[place] for row in first["counts"]) for place in range(3)]
    assert sum(truth) == sum(answered) == 60
    assert [one.folded for one in (counts, ours, theirs)] == [
        "",
        "Which label knots-ties density 0.5 answered for which",
        "Which label COMB answered for which",
    ]
    assert [[int(one.text) for one in row[1:]] for row in ours.rows[:3]] == first["counts"]
    page = str(sections.get("answers").html(realistic))
    assert page.count("<details>") == 2
    assert isinstance(theirs, Table)


def test_a_collapse_of_the_chosen_merge_stands_in_the_summary(realistic):
    odd = {"label": "neutral", "times": 59, "right": 20, "n": 60, "p_value": pytest.approx(2**-39)}
    (task,) = realistic["tasks"]
    alarmed = {**task, "collapsed": [{"system": task["chosen"], "language": "ja", **odd}]}
    said = [
        one.text
        for one in sections.get("summary").data({**realistic, "tasks": [alarmed]})
        if isinstance(one, Paragraph) and "Warning" in one.text
    ]
    assert said == [
        "Warning: one answer for nearly everything: knots-ties density 0.5 answers 'neutral' in 59 "
        "of 60 rows of ja test, where it is right in 20."
    ]
