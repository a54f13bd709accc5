"""The Python in documents is Python, and what it imports of ours is there."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    for number, block in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")))
]


def test_there_are_some():
    assert len(SHOWN) >= 4


@pytest.mark.parametrize("source", SHOWN)
def test_what_documents_import_is_there_and_takes_what_they_give_it(source):
    """Every keyword of a call of what is imported is a parameter of it."""
    tree = ast.parse(source)
    imports = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
    names: dict[str, object] = {}
    exec(compile(ast.Module(imports, []), "a document", "exec"), names)  # noqa: S102 - our own
    for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
        if isinstance(call.func, ast.Name) and callable(function := names.get(call.func.id)):
            parameters = inspect.signature(function).parameters.values()
            open_ended = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
            given = {one.arg for one in call.keywords}
            assert open_ended or given <= {one.name for one in parameters}


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = [ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *(ROOT / "examples").rglob("*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What the headings of a page can be called by, as GitHub and the site do."""
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head) for head in heads)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in plain}


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *OTHERS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_link_within_the_repository_leads_somewhere(path):
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    broken = []
    for link in LINK.findall(text):
        where, _, anchor = link.partition("#")
        target = path.parent / where if where else path
        if not where.startswith(("http://", "https://", "mailto:")) and (
            not target.exists()
            or (anchor and target.suffix == ".md" and anchor not in anchors(target))
        ):
            broken.append(link)
    assert broken == []


def pages(entry: object) -> set[str]:
    """The pages that a part of the site's navigation leads to."""
    if isinstance(entry, str):
        return {entry}
    parts = entry.values() if isinstance(entry, dict) else entry
    return set().union(*map(pages, parts))


def test_the_site_leads_to_every_page_of_the_documentation():
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = pages(site["nav"])
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= listed
    assert [page for page in listed if not (ROOT / page).exists()] == []


COMPARED = (ROOT / "docs" / "compared.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e-\d+)?")


@pytest.mark.parametrize(
    "row", [line for line in COMPARED.splitlines() if "](" in line and "|" in line]
)
def test_every_figure_of_a_comparison_stands_in_the_file_that_measured_it(row):
    _, _, ours, theirs, source, _ = row.split("|")
    text = "".join(
        (ROOT / "docs" / one).read_text(encoding="utf-8") for one in LINK.findall(source)
    )
    figures = NUMBER.findall(f"{ours} {theirs}")
    assert figures
    measured = set(NUMBER.findall(text))
    assert [one for one in figures if one not in measured] == []


FILE = re.compile(r"[`(]((?:[\w-]+/)+[\w.-]+\.(?:py|md|txt|html))[`)]")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_a_document_names_are_there(path):
    """From the root, from the sources, or beside the document."""
    places = (ROOT, ROOT / "src" / "koinize", path.parent)
    named = FILE.findall(path.read_text(encoding="utf-8"))
    assert [one for one in named if not any((place / one).exists() for place in places)] == []
