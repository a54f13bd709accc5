"""The house rules of size, what only one file may know, and the map that shows every room."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import koinize
from koinize.ledger.address import BRANCH, TRUNK, WHATIF
from koinize.pipeline.kinds import KINDS

SOURCE = Path(koinize.__file__).parent
CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"

LONGEST = 60  # lines of a function, its signature and docstring included
LONG_FOR_ONE_IN_TWENTY = 30
LONGEST_MODULE = 400


def functions() -> list[tuple[str, int]]:
    """Every function, by where it stands, with its number of lines."""
    return [
        (f"{path.relative_to(SOURCE)} {node.name}", node.end_lineno - node.lineno + 1)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_no_function_is_long():
    long = {where: lines for where, lines in functions() if lines > LONGEST}
    assert long == {}


def test_nineteen_functions_in_twenty_are_short():
    lines = sorted(lines for _, lines in functions())
    assert len(lines) > 1000, "these are the functions of koinize"
    assert lines[len(lines) * 95 // 100] < LONG_FOR_ONE_IN_TWENTY


def test_no_module_is_long():
    lines = {
        str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > LONGEST_MODULE} == {}


ADDRESSES = SOURCE / "ledger" / "address.py"
TAKE_APART = {
    *("split", "rsplit", "partition", "rpartition"),
    *("startswith", "endswith", "removeprefix", "removesuffix"),
}
SLASH = re.compile("(?<!/)/(?!/)")  # and not that of an address of the web
SPELLED = re.compile(rf"(?:{'|'.join([*KINDS, WHATIF, TRUNK, BRANCH])})/")


def texts(node: ast.AST) -> list[str]:
    """The text of a string, or the first of those in an f-string."""
    if isinstance(node, ast.JoinedStr):
        return texts(node.values[0]) if node.values else []
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def names_of_steps(source: str) -> list[str]:
    """Where a module takes a text with a slash apart, or spells what begins as a step's name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            slashed = any("/" in text for one in node.args for text in texts(one))
            if node.func.attr in TAKE_APART and slashed:
                found.append(ast.unparse(node))
        if isinstance(node, ast.JoinedStr) and any(map(SPELLED.match, texts(node))):
            found.append(ast.unparse(node))
        if isinstance(node, ast.Compare) and any(map(SLASH.search, texts(node.left))):
            found.append(ast.unparse(node))
    return found


def test_a_steps_name_is_taken_apart_in_one_file():
    """Who wants to know what a step is about asks its address."""
    paths = {path: path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    found = {path: names_of_steps(text) for path, text in paths.items()}
    assert [path for path, names in found.items() if names] == [ADDRESSES]


@pytest.mark.parametrize(
    "source",
    [
        'step.name.split("/")[-1]',
        'first, _, rest = name.partition("/")',
        'interval.step.endswith("/test")',
        'name.startswith(f"evaluate/{task}/")',
        'f"train/{task}/{language}"',
        '"/COMB/" in interval.step',
    ],
)
def test_a_name_that_is_taken_apart_is_found(source):
    """So that the test above means what it says."""
    assert names_of_steps(source)


@pytest.mark.parametrize("room", ["engine", "ledger", "merge", "pipeline", "store"])
def test_the_page_of_a_large_room_names_all_that_is_in_it(room):
    page = ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text("utf-8"))) or ""
    inside = {path.stem for path in (SOURCE / room).glob("*.py")} - {"__init__"}
    inside |= {path.parent.name for path in (SOURCE / room).glob("*/__init__.py")}
    named = set(re.findall(r"`([a-z0-9_]+)/?`", page))
    assert inside - named == set()


def test_the_map_in_contributing_shows_every_room_and_no_other():
    text = CONTRIBUTING.read_text(encoding="utf-8").partition("## Where things are")[2]
    shown = re.findall(r"`([a-z_]+(?:/|\.py))`", text)
    rooms = {f"{path.name}/" for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    files = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py"}
    assert sorted(shown) == sorted(rooms | files)
