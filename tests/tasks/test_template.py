"""Templates: what is put in comes out, and braces mean one thing only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.tasks._template import names, render

name = st.text(st.characters(blacklist_characters="{}", blacklist_categories=("Cs",)), min_size=1)


def escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@given(st.lists(st.text() | name.map(lambda one: (one,)), max_size=6), st.data())
def test_a_template_renders_to_its_pieces(pieces, data):
    """A piece is a text, or a name in a tuple; the expected text is put together by hand."""
    template = "".join(
        f"{{{one[0]}}}" if isinstance(one, tuple) else escaped(one) for one in pieces
    )
    used = [one[0] for one in pieces if isinstance(one, tuple)]
    values = {one: data.draw(st.text(), label=one) for one in used}

    assert names(template) == tuple(dict.fromkeys(used))
    expected = "".join(values[one[0]] if isinstance(one, tuple) else one for one in pieces)
    assert render(template, values) == expected


def test_values_are_not_parsed_again():
    assert render("{a} {{a}} {b}", {"a": "{b}", "b": "}}"}) == "{b} {a} }}"


def test_a_name_is_a_name_and_not_an_expression():
    odd = "a.b[0]!r:>9"
    assert render(f"<{{{odd}}}>", {odd: "x"}) == "<x>"


@pytest.mark.parametrize(
    ("template", "brace", "position"),
    [("{", "{", 1), ("a}", "}", 2), ("{a} {b", "{", 5), ("{{}", "}", 3), ("x{}", "{", 2)],
)
def test_a_brace_that_stands_alone(template, brace, position):
    with pytest.raises(ValueError, match=r"stands alone") as caught:
        names(template)

    assert str(caught.value) == (
        f"the '{brace}' at character {position} of the template stands alone; "
        f"write {{name}} for a value and '{brace * 2}' for a brace"
    )
