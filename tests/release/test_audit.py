"""Ledger and artifacts of a sound project never contradict one another, whatever happened to it."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from pathlib import Path

import pytest

from koinize.ledger import Ledger
from koinize.pipeline import run as running
from koinize.pipeline import work
from koinize.pipeline.plan import Missing
from koinize.release.audit import contradictions
from koinize.store import Store
from tests.pipeline.test_joining import SHARED, Quiet, project

ID = "a" * 64
MADE = {"run": "r1", "device": "d", "price": {}, "share": "1", "artifact": ID}


def said_of(home: Path, intervals: list[tuple[str, str, int]], measured: float = 2.0) -> list[str]:
    """What is said of an artifact that took so long, and these kinds, ends and seconds."""
    with Store(home).building(ID, "merge/mood/mean", {}) as draft:
        draft.facts["seconds"] = measured
    ledger = Ledger(home / "ledger.jsonl")
    for number, (kind, status, seconds) in enumerate(intervals):
        ledger.start(f"r1-{number}", kind=kind, step=kind, **MADE)
        if status != "open":
            ledger.end(f"r1-{number}", status=status, seconds=Decimal(seconds))
    return contradictions(home)


@pytest.mark.parametrize(
    "intervals",
    [
        pytest.param([("load", "done", 300), ("merge", "done", 2)], id="a large model"),
        pytest.param([("merge", "done", 2), ("gate", "done", 900)], id="a long gate"),
        pytest.param([("merge", "done", 900), ("merge", "done", 2)], id="made again, quicker"),
        pytest.param([("merge", "failed", 62)], id="kept here, not sent"),
        pytest.param([("merge", "interrupted", 900), ("merge", "done", 2)], id="resumed"),
        pytest.param([("merge", "interrupted", 1), ("merge", "open", 0)], id="killed after it"),
    ],
)
def test_what_may_happen_is_no_contradiction(tmp_path, intervals):
    assert said_of(tmp_path, intervals) == []


@pytest.mark.parametrize(
    ("intervals", "told"),
    [
        ([("load", "done", 3), ("gate", "done", 9)], "no line of it"),
        ([("load", "done", 3), ("merge", "done", 1)], "1.000 s for it"),
        ([("merge", "done", 2), ("merge", "done", 900)], "900.000 s for it"),
        ([("merge", "interrupted", 1)], "1.000 s for it"),
    ],
)
def test_what_cannot_have_happened_is(tmp_path, intervals, told):
    assert said_of(tmp_path, intervals) == [
        f"merge/mood/mean was made in 2.000 s, and the ledger has {told}"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 3])
def test_trainings_that_were_stopped_and_went_on(tmp_path, monkeypatch, together):
    """Alone and as a group: stopped after some steps, and finished by the next run."""
    text = SHARED.replace("baselines: [base, indv, comb]", "baselines: [indv]")
    machine = f"{{executor: inline, together: {together}, checkpoint_seconds: 0}}"
    one = project(tmp_path / "p", f"{text}machine: {machine}\n")
    reporter = work.reporter

    def stopping(*jobs):
        tell = reporter(*jobs)

        def report(done: int, total: int, *rest: object) -> None:
            tell(done, total, *rest)
            if done >= total // 2 and "train" in jobs[0].step.kind:
                monkeypatch.setattr(work, "reporter", reporter)
                os.kill(os.getpid(), signal.SIGINT)

        return report

    def go() -> running.Outcome:
        present = one.store.ids()
        steps = [step for step in one.steps if step.kind in ("base", "train")]
        todo = [Missing(step, "", 1.0) for step in steps if step.id not in present]
        return running.run(todo, one.spec, one.root, one.home, Quiet())

    monkeypatch.setattr(work, "reporter", stopping)
    with pytest.raises(KeyboardInterrupt):
        go()
    assert contradictions(one.home) == []
    assert not go().failed
    assert contradictions(one.home) == []
    trained = [i for i in one.intervals() if i.kind == "train"]
    assert sum(i.status == "interrupted" and i.lost is not None for i in trained) == together
    made = [one.store.manifest(i.artifact).facts for i in trained if i.status == "done"]
    assert sum(facts["steps_before"] > 0 for facts in made) == together
    assert len({i.group for i in trained if i.status == "done"}) == 1
