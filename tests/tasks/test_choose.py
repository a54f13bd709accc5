"""Choose: the rotation of options, and the three ways to write an answer."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.data import Row
from koinize.errors import ManyErrors
from koinize.tasks.choose import Choose

TASK = Choose(prompt="{question}\n{options}\nAnswer:")
option = st.text("abcdefgh", min_size=1, max_size=6)


def example(columns: dict[str, object], task: Choose = TASK):
    (one,) = task.examples([Row(columns, "f:1")], "en")
    return one


def asked(answer: object, options: object = ("Elbe", "Harz", "Jura"), question: str = "Where?"):
    return {"question": question, "options": list(options), "answer": answer}


@given(
    st.text(min_size=1).filter(str.strip),
    st.lists(option, min_size=2, max_size=26, unique=True),
    st.data(),
)
def test_the_rotation_is_a_rotation_and_keeps_the_right_option(question, options, data):
    answer = data.draw(st.integers(0, len(options) - 1))

    one = example(asked(answer, options, question))

    shift = int(one.labels[0])
    assert [text.strip() for text in one.options] == options[shift:] + options[:shift]
    assert [options[int(label)] for label in one.labels] == [text.strip() for text in one.options]
    assert one.labels[one.gold] == str(answer)
    assert one.target == one.options[one.gold]


def test_every_place_is_right_about_equally_often():
    """2,000 rows whose first option is right: a place holds 500 of them, give or take 5 sigma."""
    rows = [Row(asked(0, "wxyz", f"question {number}"), f"f:{number}") for number in range(2000)]

    places = Counter(one.gold for one in TASK.examples(rows, "en"))

    sigma = (2000 * 0.25 * 0.75) ** 0.5
    assert sorted(places) == [0, 1, 2, 3]
    assert all(abs(count - 500) < 5 * sigma for count in places.values())


def test_the_rotation_depends_on_the_question_and_not_on_its_place_or_answer():
    one = example(asked(0))

    assert example(asked("Harz")).options == one.options
    assert example({**asked(0), "note": "x"}).options == one.options
    assert len({example(asked(0, question=f"{n}?")).options for n in range(20)}) == 3


def test_options_are_shown_where_the_template_says_so():
    one = example(asked("Harz"))

    lines = one.prompt.splitlines()
    assert (lines[0], lines[-1]) == ("Where?", "Answer:")
    assert [line[:3] for line in lines[1:-1]] == ["A. ", "B. ", "C. "]
    assert tuple(f" {line[3:]}" for line in lines[1:-1]) == one.options

    unseen = example(asked("Harz"), Choose(prompt="{question}\nAnswer:"))
    assert unseen.prompt == "Where?\nAnswer:"
    assert sorted(unseen.options) == sorted(one.options)


def test_a_template_may_be_nothing_but_the_options():
    assert example(asked(0), Choose(prompt="{options}")).prompt.startswith("A. ")


@pytest.mark.parametrize(
    ("answer", "right"),
    [(1, "Harz"), ("B", "Harz"), ("1", "Harz"), ("Harz", "Harz"), (" Harz ", "Harz"), (0, "Elbe")],
)
def test_the_ways_to_write_an_answer(answer, right):
    assert example(asked(answer)).target == f" {right}"


@pytest.mark.parametrize(
    ("answer", "right"), [("A", "A"), ("B", "B"), ("1", "1"), (1, "1"), ("0", "C"), ("D", "1")]
)
def test_the_text_of_an_option_counts_before_its_letter_or_index(answer, right):
    assert example(asked(answer, ["C", "A", "B", "1"])).target == f" {right}"


@pytest.mark.parametrize(
    ("options", "answer", "right"),
    [
        ([2, 5, 7], 2, "2"),
        ([2, 5, 7], 0, "2"),
        ([1, 0], 0, "0"),
        ([1914, 1939], 1914, "1914"),
        ([1, 1.0], 1.0, "1.0"),
        (["1.50", "2.5"], 2.5, "2.5"),
        (["1.50", "2.5"], "1.5", "1.50"),
        (["10", "20"], 10.0, "10"),
        (["nan", "B"], "B", "B"),
    ],
)
def test_the_text_of_a_number_counts_before_its_place(options, answer, right):
    assert example(asked(answer, options)).target == f" {right}"


def test_an_answer_that_may_be_two_options_is_refused():
    rows = [Row(asked(1, ["1.0", "7"]), "f:1"), Row(asked("2", ["2.0", "2.00"]), "f:2")]

    with pytest.raises(ManyErrors) as caught:
        TASK.examples(rows, "en")

    expected = "expected an option's text, a letter from A to B, or an index from 0 to 1"
    assert str(caught.value).splitlines() == [
        f"f:1 the column 'answer' holds '1', which may be more than one of the options; {expected}",
        f"f:2 the column 'answer' holds '2', which may be more than one of the options; {expected}",
    ]


def test_a_file_of_indexes_cannot_mean_a_text_once():
    """Alone, [2, 5, 7] and 2 is the option 2; beside a row that can only be an index, who knows?"""
    doubtful, by_place = Row(asked(2, [2, 5, 7]), "f:1"), Row(asked(2, [10, 20, 30]), "f:2")
    text = Row(asked(30, [10, 20, 30]), "f:3")

    assert TASK.examples([doubtful, text], "en")
    with pytest.raises(ManyErrors) as caught:
        TASK.examples([doubtful, by_place], "en")

    assert str(caught.value) == (
        "f:1 the column 'answer' holds '2', the text of one option and the letter or index of "
        "another, and other rows give letters or indexes; give every row the text of its option"
    )


def test_columns_may_have_other_names_and_a_csv_file_its_list_as_json():
    task = Choose(prompt="{q}", options="choices", target="right")

    assert example({"q": "?", "choices": '["x", 2]', "right": "B"}, task).target == " 2"


def test_without_a_template_the_completion_is_the_answer():
    row = {"prompt": "Where? ", "completion": " Jura", "options": ["Elbe", "Jura"]}

    one = example(row, Choose())
    assert (one.prompt, one.target) == ("Where? ", "Jura")


def test_what_makes_a_row_useless():
    bad = [
        asked(3),
        asked(-1),
        asked("Rhein"),
        asked("D"),
        asked(True),
        {"question": "?", "answer": 0},
        {"question": "?", "answer": 0, "options": "Elbe, Harz"},
        asked(0, ["Elbe"]),
        asked(0, [str(number) for number in range(27)]),
        asked(0, ["Elbe", "Harz", "Elbe "]),
        asked(0, ["Elbe", ""]),
        asked(0, ["Elbe", None]),
    ]

    with pytest.raises(ManyErrors) as caught:
        TASK.examples([Row(columns, f"f:{n}") for n, columns in enumerate(bad, 1)], "en")

    answers = "expected an option's text, a letter from A to C, or an index from 0 to 2"
    lists = "expected a list of 2 to 26 different texts"
    assert str(caught.value).splitlines() == [
        f"f:1 the column 'answer' holds '3', which is none of the options; {answers}",
        f"f:2 the column 'answer' holds '-1', which is none of the options; {answers}",
        f"f:3 the column 'answer' holds 'Rhein', which is none of the options; {answers}",
        f"f:4 the column 'answer' holds 'D', which is none of the options; {answers}",
        f"f:5 the column 'answer' holds 'true', which is none of the options; {answers}",
        "f:6 there is no column 'options', which the task names; expected one of: question, answer",
        f"f:7 the column 'options' holds no list; {lists}",
        f"f:8 the column 'options' holds 1 options; {lists}",
        f"f:9 the column 'options' holds 27 options; {lists}",
        f"f:10 the column 'options' holds 'Elbe' twice; {lists}",
        f"f:11 the column 'options' holds an empty option; {lists}",
        "f:12 the column 'options' holds a list; expected text or a number",
    ]


def test_the_same_question_with_other_options_is_another_question():
    rows = {
        ("en", "train"): [Row(asked("Elbe"), "a:1")],
        ("en", "dev"): [Row(asked("Elbe", ["Elbe", "Alps"]), "a:2")],
        ("en", "test"): [Row(asked("Harz", ["Jura", "Harz", "Elbe"]), "a:3")],
    }

    assert [(one.where, one.other) for one in TASK.check(rows)] == [("a:3", "a:1")]
