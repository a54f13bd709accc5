"""What an error says, and that nothing of it is lost on the way between processes."""

from __future__ import annotations

import pickle

import pytest

from koinize.errors import (
    GateError,
    InputError,
    KoinizeError,
    ManyErrors,
    StepError,
    did_you_mean,
    each,
)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "it broke"),
        ({"where": "a.yaml:3:1"}, "a.yaml:3:1 it broke"),
        ({"expected": "a number"}, "it broke; expected a number"),
        ({"remedy": "mend it"}, "it broke; mend it"),
        (
            {"where": "a.yaml:3:1", "expected": "a number", "remedy": "mend it"},
            "a.yaml:3:1 it broke; expected a number; mend it",
        ),
    ],
)
def test_a_message_has_only_the_parts_that_are_given(fields, text):
    assert str(KoinizeError("it broke", **fields)) == text


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [(KoinizeError, 1), (StepError, 1), (InputError, 2), (ManyErrors, 2), (GateError, 3)],
)
def test_exit_codes(kind, exit_code):
    assert kind.exit_code == exit_code


@pytest.mark.parametrize("kind", [KoinizeError, StepError, InputError, GateError])
def test_pickling_keeps_the_class_and_every_field(kind):
    error = kind("what", where="where", expected="expected", remedy="remedy")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.what, again.where, again.expected, again.remedy) == (
        "what",
        "where",
        "expected",
        "remedy",
    )


def test_pickling_many_keeps_each_of_them():
    again = pickle.loads(pickle.dumps(ManyErrors([InputError("a", where="x"), InputError("b")])))
    assert type(again) is ManyErrors
    assert str(again) == "x a\nb"
    assert [error.where for error in again.errors] == ["x", ""]


def test_many_inside_many_become_one_list():
    one, two, three = InputError("1"), InputError("2"), InputError("3")
    nested = ManyErrors([one, ManyErrors([two, three])])
    assert nested.errors == (one, two, three)
    assert str(nested) == "1\n2\n3"


def test_each():
    one, two = InputError("1"), InputError("2")
    assert each(one) == (one,)
    assert each(ManyErrors([one, two])) == (one, two)


@pytest.mark.parametrize(
    ("word", "known", "remedy"),
    [
        ("densty", ["recipe", "density"], "did you mean 'density'?"),
        ("x", ["b", "a"], "choose one of: a, b"),
        ("x", [], "none is known here"),
    ],
)
def test_did_you_mean(word, known, remedy):
    assert did_you_mean(word, known) == remedy
