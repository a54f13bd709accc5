"""The examples for other trainers: what can be run is, the rest is at least well formed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from koinize.adapter import read_header
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.settings import LoraSpec, TrainingSpec
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small

EXAMPLES = Path(__file__).parents[2] / "examples" / "trainers"
TRL = os.environ.get("KOINIZE_TRL_PYTHON") or (sys.executable if find_spec("trl") else "")
FILLED = [
    "axolotl/axolotl.yaml",
    "llama-factory/llama-factory.yaml",
    "llama-factory/dataset_info.json",
]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """What koinize gives, its values those of the defaults."""
    path = tmp_path / "settings.json"
    places = {"base": "/the/base", "rows": f"{tmp_path}/rows.jsonl", "start": "", "out": "/out"}
    training, lora = TrainingSpec(), LoraSpec()
    asked = {"lora": lora.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    path.write_text(json.dumps({**places, **asked}))
    return path


SHOW = "import sys; print(open(sys.argv[1]).read())"


@pytest.mark.parametrize("name", FILLED)
def test_a_configuration_is_filled_in(settings: Path, name: str) -> None:
    command = [sys.executable, EXAMPLES / "filled.py", settings, EXAMPLES / name, "--"]
    shown = [sys.executable, "-c", SHOW, f"@{Path(name).name}"]
    done = subprocess.run([*command, *shown], capture_output=True, text=True, check=True)
    found = YAML(typ="safe", pure=True).load(done.stdout)
    if name.startswith("axolotl"):
        assert (found["lora_r"], found["learning_rate"], found["lora_model_dir"]) == (
            16,
            5e-4,
            None,
        )
        assert found["datasets"][0]["path"] == str(settings.with_name("rows.jsonl"))
        assert (found["base_model"], found["output_dir"]) == ("/the/base", "/out")
    elif name.endswith("yaml"):
        assert (found["lora_alpha"], found["use_rslora"], found["num_train_epochs"]) == (
            32,
            False,
            3,
        )
        assert found["dataset_dir"] == str(settings.parent)
    else:
        assert found["koinize"]["file_name"] == "rows.jsonl"


def test_a_name_that_nobody_knows_is_no_value(settings: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("a: ${lora.rank}\n")
    command = [sys.executable, EXAMPLES / "filled.py", settings, tmp_path / "wrong.yaml", "--"]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "KeyError: 'rank'" in done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.parent.name)
def test_a_script_is_python(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"))


class Quiet:
    """A watcher that shows nothing."""

    def planned(self, todo: object) -> None: ...
    def started(self, step: object) -> None: ...
    def moved(self, step: object, done: int, total: int) -> None: ...
    def ended(self, step: object, seconds: float, error: str) -> None: ...


@pytest.mark.slow
@pytest.mark.skipif(not TRL, reason="no TRL: install trl, or name its Python in KOINIZE_TRL_PYTHON")
def test_trl_trains_a_trunk_and_a_branch_of_it(small: Small) -> None:
    """All seven linear layers of both blocks; and a project that is whole afterwards."""
    write_tiny_base(small.root / "base")
    script = EXAMPLES / "trl" / "train.py"
    command = f'[{TRL}, {script}, "{{settings}}", "{{start}}"]'
    training = f"epochs: 2, trunk: joint, trainer: {{command: {command}}}"
    text = SPEC.replace("epochs: 2", training).replace("model: base", "model: base, dtype: float32")
    small.spec(text + "baselines: [base]\n")
    trained = []
    for rows in (["a", "b"], ["a", "b", "c"]):
        small.rows("de", "train", rows)
        todo, outcome = small.real().run(Quiet(), lambda _: None)
        assert outcome.failed == {}
        trained += [one.step for one in todo.missing if one.step.kind == "train"]
    trunk, branch = trained
    assert branch.uses.trunk == trunk.id
    store = Store(small.root / ".koinize")
    for one in trained:
        modules = read_header(store.open(one.id).folder).modules.values()
        assert [(part.rank, part.scale) for part in modules] == 2 * 7 * [(16, 2.0)]
