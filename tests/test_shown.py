"""Text from outside, in every medium: nothing in it acts, and all of it can be read."""

import csv
import io
import json
import re
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from koinize.errors import InputError, ManyErrors
from koinize.shown import csv_cell, escaped, json_text, line, markdown, message, without_secrets

ANYTHING = st.text(st.characters(codec=None), max_size=80)
MARKS = st.text("\\`<>[]()*_|#+-=~.:!&;12ax ", max_size=12)  # what Markdown is made of


@given(ANYTHING)
def test_a_terminal_gets_nothing_that_it_obeys(text):
    shown = message(text)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown)
    assert line(text).count("\n") == 0


def test_what_escapes_look_like():
    assert escaped("\x1b]0;a\x07b\u202ec\ud800\nd\te") == "\\u001b]0;a\\u0007b\\u202ec\\ud800\nd\te"
    assert line("a\nb\tc") == "a\\u000ab\\u0009c"
    assert escaped("für 日本 🏳️‍🌈 العربية") == "für 日本 🏳️‍🌈 العربية"


def test_long_lines_keep_both_ends():
    shown = message("a" * 60_000 + "z\n" + "short")
    first, second = shown.split("\n")
    assert first.startswith("aaa")
    assert first.endswith("z")
    assert " ... (60001 characters) ... " in first
    assert len(first) <= 1000
    assert second == "short"


@settings(max_examples=500)
@given(ANYTHING | MARKS)
def test_markdown_reads_as_one_plain_line(text):
    html = MarkdownIt("commonmark").enable("table").render(f"- {markdown(text)}\n")
    told = re.sub(r"</?(ul|li)>|\n", "", html)
    assert unescape(told).strip() == line(text, 1000).strip()
    assert set(re.findall(r"</?(\w+)", html)) <= {"ul", "li"}


@pytest.mark.parametrize(
    "text",
    [
        "<script>x</script>",
        "a | b",
        "`code`",
        "[x](http://y)",
        "# head",
        "- item",
        "*x*",
        "\\<b>",
        "_0_",
        "1. x",
        " # h",
        "&lt;",
    ],
)
def test_markdown_by_name(text):
    html = MarkdownIt("commonmark").enable("table").render(f"- {markdown(text)}\n")
    told = re.sub(r"</?(ul|li)>|\n", "", html)
    expected = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert told == expected.strip()
    assert "|" not in markdown(text)


@given(ANYTHING)
def test_a_cell_never_begins_a_formula(text):
    row = io.StringIO()
    csv.writer(row).writerow([csv_cell(text)])
    [cell] = next(csv.reader(io.StringIO(row.getvalue(), newline="")))
    number = re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", cell)
    assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_stay_numbers_in_a_cell():
    assert [csv_cell(one) for one in ("-0.5", "1e-9", "=1+1", "-x", "plain")] == [
        "-0.5",
        "1e-9",
        "'=1+1",
        "'-x",
        "plain",
    ]


WHOLE = st.text(max_size=80)  # two halves that happen to meet would be read as one character


@given(st.recursive(WHOLE, lambda inner: st.lists(inner) | st.dictionaries(WHOLE, inner)))
def test_json_means_the_same_and_ends_no_block(value):
    text = json_text(value)
    assert json.loads(text) == value
    assert json.loads(json_text("\ud800")) == "\ud800"
    assert not re.search("[<`\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://user:S3CRET@host/p", "https://***@host/p"),
        ("see https://tok@host/a and http://b:c@d", "see https://***@host/a and http://***@d"),
        ("https://h/p?a=1&token=S3CRET&b=2", "https://h/p?a=1&token=***&b=2"),
        ("https://h/?api_key=S3CRET", "https://h/?api_key=***"),
        ("https://h/p?X-Amz-Signature=S3CRET&a", "https://h/p?X-Amz-Signature=***&a"),
        ("mail me@host", "mail me@host"),
        ("https://host/@scope/package", "https://host/@scope/package"),
    ],
)
def test_no_secret_of_a_url_is_told(text, told):
    assert without_secrets(text) == told
    assert str(InputError(f"no model '{text}'")) == f"no model '{told}'"


def test_an_error_shows_its_input_as_data():
    error = InputError("'\x1b[2J' is no label", where="a\rb.jsonl:1")
    assert str(error) == "a\\u000db.jsonl:1 '\\u001b[2J' is no label"
    many = ManyErrors(InputError(f"mistake {n}") for n in range(103))
    assert str(many).split("\n")[-2:] == ["mistake 99", "and 3 more"]
