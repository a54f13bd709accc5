"""The Python in documents is Python, and what it imports of ours is there."""

from __future__ import annotations

import ast
import inspect
import re
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
FILE = re.compile(r"[`(]((?:[\w-]+/)+[\w.-]+\.(?:py|md|txt|html))[`)]")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_a_document_names_are_there(path):
    """From the root, from the sources, or beside the document."""
    places = (ROOT, ROOT / "src" / "koinize", path.parent)
    named = FILE.findall(path.read_text(encoding="utf-8"))
    assert [one for one in named if not any((place / one).exists() for place in places)] == []
