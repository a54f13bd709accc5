"""What a worker makes sure of before it commits anything under a step's identity."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from koinize.errors import StepError
from koinize.examples.tiny.make_base import write_tiny_base
from koinize.executors import WorkerEndedError, executors
from koinize.pipeline.work import Job, ended, perform
from koinize.spec import load
from koinize.store import Store
from tests.pipeline.conftest import Small


@pytest.mark.parametrize(
    ("name", "split"), [("train/mood/de", "train"), ("evaluate/mood/BASE/de/test", "test")]
)
def test_a_file_that_changed_since_the_plan_is_not_committed(
    small: Small, monkeypatch: pytest.MonkeyPatch, name: str, split: str
) -> None:
    monkeypatch.setattr("koinize.pipeline.work.loaded", lambda job: None)
    step = small.steps()[name]
    small.rows("de", split, ["something else"])
    home = small.root / ".koinize"
    job = Job(step, load(small.root / "koinize.yaml"), small.root, home, threads=1)
    with pytest.raises(StepError) as caught:
        perform(job)
    assert str(caught.value) == f"data/de.{split}.jsonl changed while it was read; run again"
    assert step.id not in Store(home).ids()


@pytest.fixture
def died(small: Small) -> Callable[[str], str]:
    """What is said of a training in a worker that ended so; the base model lies in `base`."""
    write_tiny_base(small.root / "base")
    project = small.real()
    step = next(one for one in project.steps if one.name == "train/mood/de")
    job = Job(step, project.spec, small.root, small.root / ".koinize", threads=1)
    return lambda how: ended(job, WorkerEndedError(how))


def test_a_worker_that_is_killed_is_told_by_its_signal(died: Callable[[str], str]) -> None:
    assert died("SIGKILL") == "train/mood/de ended with its worker process: SIGKILL"
    assert died("SIGBUS") == "train/mood/de ended with its worker process: SIGBUS"


def test_a_base_that_was_cut_off_under_a_worker_is_named(
    small: Small, died: Callable[[str], str]
) -> None:
    weights = small.root / "base" / "model.safetensors"
    os.truncate(weights, 5000)
    assert died("SIGBUS") == (
        f"train/mood/de ended with its worker process: SIGBUS: {weights} was cut off while it was "
        "used; restore it from a copy, and run again"
    )


def test_a_base_that_was_written_anew_under_a_worker_is_told(
    small: Small, died: Callable[[str], str]
) -> None:
    weights = small.root / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert died("SIGBUS") == (
        "train/mood/de ended with its worker process: SIGBUS: base the base model changed while it "
        "was used; run again: what stands on it is planned anew"
    )


CUT = """
import os
from koinize.model.loading import load_folder
model, _ = load_folder({folder!r}, "auto")
os.truncate({folder!r} + "/model.safetensors", 0)
sum(float(one.sum()) for one in model.parameters())
"""


@pytest.mark.slow
def test_a_worker_whose_base_is_cut_off_ends_by_that_signal(tmp_path: Path) -> None:
    """What the messages above rest on: weights stay mapped, and the system ends who reads on."""
    write_tiny_base(tmp_path)
    with executors.get("local")(1, 1) as executor:
        error = executor.submit(exec, CUT.format(folder=str(tmp_path)), {}).exception()
    assert isinstance(error, WorkerEndedError)
    assert error.how == "SIGBUS"
