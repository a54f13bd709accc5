"""The worked notebook of docs/api.md does what it says, cell after cell."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook" / "koinize.ipynb"


def code_cells() -> list[dict]:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [one for one in found if one["cell_type"] == "code"]


def program() -> str:
    """All cells in one namespace; each prints the value of its last line, as notebooks do."""
    lines = []
    for cell in code_cells():
        tree = ast.parse("".join(cell["source"]))
        last = tree.body[-1]
        if isinstance(last, ast.Expr):
            tree.body[-1] = ast.parse(f"print(repr({ast.unparse(last.value)}), flush=True)").body[0]
        lines.append(ast.unparse(tree))
    return "\n".join(lines)


def test_it_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(one["outputs"] == [] and not one["execution_count"] for one in code_cells())
    assert len({one["id"] for one in cells}) == len(cells)


@pytest.mark.slow
def test_every_cell_runs_and_prints_nothing_but_its_value(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", program()],  # as of a notebook, workers find no script to import
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    values = ran.stdout.splitlines()
    assert len(values) == len(code_cells())
    opened, planned, run, scores, verdicts, spent, first, changed, promoted, staged, merged = values
    assert opened == "(('de', 'en', 'ja'), ('mood',))"
    assert planned.startswith("([('base', 'never done'), ('train/mood/de', 'never done'), ")
    assert run.startswith("('47 of 47 steps', (")
    assert scores.count("n=54") == 3
    assert [language in verdicts for language in ("'de'", "'en'", "'ja'", "None")] == [True] * 4
    assert "{'USD': Decimal('0.00" in spent
    assert first.startswith(
        "('v1', ['README.md', 'adapter_config.json', 'adapter_model.safetensors'"
    )
    assert changed == "(('data/de.train.jsonl: 1 rows added',), ['train/mood/de'], 6)"
    assert promoted.count("'ja'") == 4  # by every metric, whatever the gate says
    assert "channel 'production' of task 'mood' has no release to go back to" in staged
    assert ", 16, 0.0, " in merged
