"""The house rules of importing: only downwards, in no circle, and nothing heavy before its time."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import koinize

SOURCE = Path(koinize.__file__).parent

LAYERS = (
    {"errors", "digest", "catalog", "exchange", "files", "frozen", "shown"},
    {"adapter", "data", "ledger", "machine", "settings", "store"},
    {"executors", "merge", "metrics", "model", "tasks"},
    {
        *("encoding", "engine", "evaluate", "examples", "gate", "imports", "peft_compat"),
        *("report", "search", "spec", "train"),
    },
    {"export", "pipeline", "release", "serving", "tracking"},
    {"api"},
    {"cli"},
)
"""The parts of koinize, each above what it may import. `docs/decisions/001-layers.md` says why."""

LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}

APART = {"tasks", "metrics", "merge", "executors"}
"""Parts full of plug-ins, which know nothing of each other nor of what is kept."""

KEPT_FROM_THEM = APART | {"store", "ledger"}


def module_name(path: Path, root: Path = SOURCE) -> str:
    """`koinize.spec.read` for src/koinize/spec/read.py; a package is named by its folder."""
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imports(name: str, path: Path, known: set[str]) -> Iterator[str]:
    """The modules of ours that a file imports anywhere: in functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name in known)
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            base = package.split(".")[: len(package.split(".")) + 1 - node.level]
            target = ".".join([*base, *([node.module] if node.module else [])])
            target = target if node.level else str(node.module)
            for one in node.names:
                full = f"{target}.{one.name}"
                if full in known:
                    yield full
                elif target in known:
                    yield target


GRAPH = {name: set(imports(name, path, set(MODULES))) for name, path in MODULES.items()}


def part(name: str) -> str:
    """The part of the house: the word after `koinize`; empty for the package itself."""
    return name.partition(".")[2].partition(".")[0]


def test_every_part_has_its_layer():
    parts = {part(name) for name in MODULES} - {""}
    assert parts - set(LAYER) == set(), "give it a layer in LAYERS"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    """The package root exports lazily; all others import only what is below them or beside."""
    upward = [
        other
        for other in sorted(GRAPH[name])
        if part(name) and part(other) and LAYER[part(other)] > LAYER[part(name)]
    ]
    assert upward == []


def test_the_plug_ins_know_neither_each_other_nor_what_is_kept():
    crossing = [
        f"{name} -> {other}"
        for name, others in GRAPH.items()
        for other in sorted(others)
        if part(name) in APART and part(other) in KEPT_FROM_THEM - {part(name)}
    ]
    assert crossing == []


def test_there_is_no_circle_among_modules():
    """The root's lazy exports are left out; what is below it may ask for its version."""
    graph = {name: others - {"koinize"} for name, others in GRAPH.items() if name != "koinize"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_there_is_no_circle_among_parts():
    """Two parts of one layer may not need each other, by whichever of their modules."""
    graph: dict[str, set[str]] = {}
    for name, others in GRAPH.items():
        graph.setdefault(part(name), set()).update(part(other) for other in others)
    graph = {one: others - {one, ""} for one, others in graph.items() if one}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_imports_are_found_wherever_they_stand(tmp_path):
    """So that the tests above mean what they say."""
    path = tmp_path / "koinize" / "spec" / "read.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import koinize.store\n"
        "from koinize import digest, __version__\n"
        "from . import shape\n"
        "from .. import ledger\n"
        "from ..tasks import Task\n"
        "from koinize.spec.grid import expand\n"
        "if TYPE_CHECKING:\n    from koinize.model.loaded import Loaded\n"
        "def late():\n    from koinize.train import train\n"
        "import os\n"
    )
    known = {
        "koinize",
        *(
            f"koinize.{one}"
            for one in ("store", "digest", "ledger", "tasks", "train", "model.loaded")
        ),
        *(f"koinize.spec.{one}" for one in ("shape", "grid", "read")),
    }
    assert set(imports(module_name(path, tmp_path / "koinize"), path, known)) == (
        known - {"koinize.spec.read"}
    )


def loaded_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after running this."""
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(ran.stdout.splitlines()[-1].split())


HEAVY = {"torch", "transformers", "peft", "safetensors", "pynvml"}

HELP = """
sys.argv = ["koinize", "--help"]
from koinize.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code == 0, ended.code
"""


@pytest.mark.parametrize(
    ("code", "kept_out"),
    [
        ("import koinize", HEAVY | {"pydantic", "numpy", "typer", "rich"}),
        ("import koinize; koinize.Project", HEAVY | {"typer"}),
        ("import koinize.spec, koinize.data, koinize.tasks", HEAVY),
        ("import koinize.metrics, koinize.store, koinize.ledger, koinize.executors", HEAVY),
        ("import koinize.pipeline, koinize.cli", HEAVY),
        (
            "import koinize.report, koinize.merge.recipe, koinize.model.base",
            HEAVY - {"safetensors"},
        ),
        (HELP, HEAVY | {"pydantic", "numpy", "ruamel"}),
    ],
    ids=["koinize", "api", "spec", "store", "pipeline", "report", "help"],
)
def test_what_stays_out_until_it_is_needed(code, kept_out):
    assert loaded_after(code) & kept_out == set()
