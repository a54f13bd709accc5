"""What a worker makes sure of before it commits anything under a step's identity."""

from __future__ import annotations

import pytest

from koinize.errors import StepError
from koinize.pipeline.work import Job, perform
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
