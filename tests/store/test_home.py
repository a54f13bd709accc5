"""Where the files under .koinize lie, and that nobody else knows."""

from __future__ import annotations

import ast
from pathlib import Path

import koinize
from koinize.store import Home, write_record

SOURCE = Path(koinize.__file__).parent
NAMED = (
    *("artifacts", "names", "temporary", "ledger", "releases", "lock", "holder", "heartbeat"),
    *("progress", "inputs", "experience", "digests", "signatures"),
)


def places(folder: Path) -> list[Path]:
    home = Home(folder)
    return [
        *(getattr(home, name) for name in NAMED),
        *(home.lost("1f"), home.log("train/mood/de"), home.interference("mood")),
    ]


def test_each_file_has_a_place_of_its_own_inside(tmp_path):
    found = places(tmp_path)
    assert len({one.relative_to(tmp_path).parts[0] for one in found}) == len(found)


def test_a_name_of_a_task_or_step_leads_to_no_other_folder(tmp_path):
    home = Home(tmp_path)
    assert home.interference("../../etc").parent == home.interference("mood").parent
    assert home.log("train/mood/de").parent == home.log("base").parent == tmp_path / "logs"


def test_what_is_remembered_is_what_may_go(tmp_path):
    home = Home(tmp_path)
    assert list(home.remembered()) == []
    kept = [home.inputs, home.lengths, home.digests / "a.json", home.interference("mood")]
    for path in (*kept, home.ledger, home.names, home.lost("1f")):
        path.parent.mkdir(exist_ok=True)
        write_record(path, {})
    assert list(home.remembered()) == kept


def test_nobody_else_spells_a_name_of_a_file_under_koinize(tmp_path):
    """As the end of a path. The user's cache, which is no project's, has digests of its own."""
    names = {one.relative_to(tmp_path).parts[0] for one in places(tmp_path)} | {".koinize"}
    others = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "store" / "home.py"]
    spelled = [
        f"{path.relative_to(SOURCE)}:{node.lineno} {ast.unparse(node)}"
        for path in others
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, ast.Constant)
        and node.right.value in names
    ]
    assert [one for one in spelled if "cache / 'digests'" not in one] == []
