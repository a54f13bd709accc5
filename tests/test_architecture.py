"""The house rules of size, and that the map of the house shows every room."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import koinize

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


WAITS = {"cli/merge.py merge"}  # until its options come from MergeSettings


def test_no_function_is_long():
    long = {where: lines for where, lines in functions() if lines > LONGEST}
    assert long.keys() - WAITS == set()


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


def test_the_map_in_contributing_shows_every_room_and_no_other():
    text = CONTRIBUTING.read_text(encoding="utf-8").partition("## Where things are")[2]
    shown = re.findall(r"`([a-z]+(?:/|\.py))`", text)
    rooms = {f"{path.name}/" for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    files = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py"}
    assert sorted(shown) == sorted(rooms | files)
