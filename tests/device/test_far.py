"""Everything that computes, on a device that is not the CPU: nothing is left behind on the host."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

PROGRAM = Path(__file__).with_name("program.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
        reason="this torch takes no device that is written in Python",
    ),
]
FLOAT32 = 2.0**-24


def distances(what: str, folder: Path) -> dict[str, float]:
    ran = subprocess.run(
        [sys.executable, PROGRAM, what, folder], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_every_recipe_merges_there(tmp_path):
    """Within what a nearly tied vote may turn over: tests/contract/test_merge_memory.py."""
    apart = distances("merges", tmp_path)
    assert len(apart) > 50
    iso = {name for name in apart if name.startswith("iso") and name != "iso whole"}
    assert {name for name, one in apart.items() if not one <= math.sqrt(10 * FLOAT32)} <= iso


def test_models_train_and_answer_there(tmp_path):
    """Losses, scores and texts; six steps of Adam on the roundings of gradients."""
    apart = distances("models", tmp_path)
    assert len(apart) == 12
    bounds = {
        "losses": 100 * FLOAT32,
        "scores": 100 * FLOAT32,
        "texts": 0.0,
        "update": 200 * FLOAT32,
    }
    assert {n: one for n, one in apart.items() if not one <= bounds[n.split()[1]]} == {}


def test_tensors_of_two_devices_do_not_mix():
    """So that the tests above can fail."""
    program = (
        "import far, torch\n"
        "there = torch.ones(2, 3).to(far.install())\n"
        "assert float((there @ there.T).sum()) == 12\n"
        "try:\n    there + torch.ones(2, 3)\n"
        "except far.Mixed as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=PROGRAM.parent, capture_output=True, text=True
    )
    assert ran.stdout == (
        "aten.add.Tensor of torch.Size([2, 3]) there and torch.Size([2, 3]) here\n"
    ), ran.stderr
