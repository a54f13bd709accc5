"""An option of a merge is declared once: in `MergeSettings`, and everything else says the same."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from koinize.cli import application
from koinize.cli.merge_options import flag
from koinize.merge.option import LOCAL
from koinize.merge.recipe import LOCAL_OPTIONS, MergeSettings
from koinize.spec import schema

DOCS = Path(__file__).parents[2] / "docs"
FIELDS = MergeSettings.model_fields


def meanings(page: str, heading: str) -> dict[str, str]:
    """Option -> the last cell of its row, in the table below a heading."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"# {heading}\n")[2]
    section = re.split(r"^#+ ", text, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `(\w+)` \|.* \| (.*) \|$", section, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("page", "heading"), [("merging.md", "Options"), ("spec.md", "One candidate")]
)
def test_a_table_has_every_option_and_what_it_means(page, heading):
    assert meanings(page, heading) == {name: field.description for name, field in FIELDS.items()}


def test_the_table_has_what_the_command_line_calls_it_and_where_it_may_differ():
    text = (DOCS / "merging.md").read_text(encoding="utf-8")
    for name, field in FIELDS.items():
        local = "yes" if LOCAL in field.metadata else ""
        assert f"\n| `{name}` | `{flag(name)}` | {local} | {field.description} |\n" in text


def test_the_command_line_has_every_option():
    shown = CliRunner().invoke(application(), ["merge", "--help"], terminal_width=5000).output
    for name, field in FIELDS.items():
        line = next(one for one in shown.splitlines() if f" {flag(name)} " in one)
        assert field.description.replace("`", "")[1:] in line


def test_the_schema_has_every_option_and_what_it_means():
    candidates = schema()["$defs"]["MergeSection"]["properties"]["candidates"]
    grid = candidates["items"]["anyOf"][1]["properties"]
    assert {name: one["anyOf"][0]["description"] for name, one in grid.items()} == {
        name: field.description for name, field in FIELDS.items()
    }


def test_what_may_differ_reads_as_ever():
    assert {
        "density", "epsilon", "normalize", "outliers", "rank", "rescale", "scale", "sign",
        "weights",
    } == LOCAL_OPTIONS  # fmt: skip
