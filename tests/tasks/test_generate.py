"""Generate: references, and what stands between them and the prompt."""

import pytest
from pydantic import ValidationError

from koinize.data import Row
from koinize.errors import ManyErrors
from koinize.tasks.generate import Generate


def examples(task: Generate, *contents: dict[str, object]):
    return task.examples([Row(one, f"f:{n}") for n, one in enumerate(contents, 1)], "en")


def test_the_reference_is_the_target():
    task = Generate(prompt="{text}\nSummary:", target="summary")

    (one,) = examples(task, {"text": "a b c", "summary": " a \n"})

    assert (one.prompt, one.target) == ("a b c\nSummary:", " a")
    assert (one.options, one.labels, one.gold) == ((), (), -1)


def test_references_that_cannot_be_generated():
    with pytest.raises(ManyErrors) as caught:
        examples(
            Generate(prompt="{text}", stop=("\n", "END")),
            {"text": "a", "target": "one\ntwo"},
            {"text": "a", "target": "the END."},
            {"text": "a", "target": " \n"},
            {"text": "a", "target": None},
        )

    remedy = "put the text on one line, or give the task another `stop`"
    assert str(caught.value).splitlines() == [
        f"f:1 the column 'target' contains '\\n', at which generation stops; {remedy}",
        f"f:2 the column 'target' contains 'END', at which generation stops; {remedy}",
        "f:3 the column 'target' is empty; expected the text to generate",
        "f:4 the column 'target' is null; expected text or a number",
    ]


def test_other_stops_allow_other_references():
    task = Generate(prompt="{text}:", stop=())

    assert examples(task, {"text": "a", "target": "one\ntwo"})[0].target == " one\ntwo"


def test_a_stop_of_no_characters_would_stop_everywhere():
    with pytest.raises(ValidationError, match="at least 1 character"):
        Generate(stop=("",))


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        ("Sum up in {{one}} line.\n{text}\nSummary:", "a b c"),
        ("{title}: {text} =", "T: a b c"),
        (None, "a b c"),
    ],
)
def test_a_bare_prompt_is_what_was_asked_and_no_instruction(template, asked):
    columns = {"text": "a b c", "title": "T", "target": "a", "completion": " a", "prompt": "a b c"}
    task = Generate(prompt=template)
    (one,) = examples(task, columns)
    assert task.bare(one.prompt, "en") == asked
