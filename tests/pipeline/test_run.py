"""Running: order, failures, interruptions, locks and the ledger, with the work itself faked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from koinize.errors import InputError, StepError
from koinize.ledger import Interval, Ledger
from koinize.pipeline import run as running
from koinize.pipeline.plan import Missing, Plan, plan
from koinize.pipeline.run import Outcome, locked
from koinize.pipeline.step import Step
from koinize.pipeline.work import Job
from koinize.spec import load
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small


class Recorder:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []

    def planned(self, todo: Plan) -> None: ...

    def started(self, step: Step) -> None: ...

    def moved(self, step: Step, done: int, total: int) -> None: ...

    def ended(self, step: Step, seconds: float, error: str) -> None:
        self.ends.append((step.name, error))


def fake(trouble: Callable[[Step], None]) -> Callable[[Job], dict[str, object]]:
    def perform(job: Job) -> dict[str, object]:
        step = job.step
        with Store(job.home).building(step.id, step.name, step.identity) as draft:
            trouble(step)
            draft.facts.update(rows=dict(step.rows), units=step.units, tokens=7)
        return draft.facts

    return perform


@pytest.fixture
def go(small: Small, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Outcome, Recorder]]:
    def once(trouble: Callable[[Step], None] = lambda step: None) -> tuple[Outcome, Recorder]:
        monkeypatch.setattr(running, "perform", fake(trouble))
        spec = load(small.root / "koinize.yaml")
        home = small.root / ".koinize"
        todo = plan(list(small.steps().values()), Store(home), [], 1, {})
        recorder = Recorder()
        return running.run(todo.missing, spec, small.root, home, recorder), recorder

    return once


def intervals(small: Small) -> list[Interval]:
    return Ledger(small.root / ".koinize" / "ledger.jsonl").intervals()


def failing(name: str, error: BaseException) -> Callable[[Step], None]:
    def trouble(step: Step) -> None:
        if step.name == name:
            raise error

    return trouble


def test_everything_runs_once_and_then_nothing(small: Small, go: Callable) -> None:
    first, recorder = go()
    assert len(first.done) == len(small.steps()) == len(recorder.ends)
    assert not first.failed
    second, _ = go()
    assert second == Outcome()
    assert len(intervals(small)) == len(first.done)


def test_needs_come_first(small: Small, go: Callable) -> None:
    outcome, _ = go()
    position = {name: n for n, name in enumerate(outcome.done)}
    steps = small.steps()
    names = {step.id: step.name for step in steps.values()}
    for step in steps.values():
        assert all(position[names[need]] < position[step.name] for need in step.needs)


def test_a_failure_ends_only_what_depends_on_it(small: Small, go: Callable) -> None:
    outcome, recorder = go(failing("train/mood/comb", StepError("out of luck", where="comb")))
    assert outcome.failed == {"train/mood/comb": "comb out of luck"}
    assert ("train/mood/comb", "comb out of luck") in recorder.ends
    after = {"evaluate/mood/COMB/de/test", "evaluate/mood/COMB/en/test"}
    assert set(outcome.skipped) == after | {"train/mood/comb"}
    [failed] = [one for one in intervals(small) if one.status == "failed"]
    assert (failed.step, failed.error) == ("train/mood/comb", "comb out of luck")


def test_the_next_run_does_only_what_failed(small: Small, go: Callable) -> None:
    go(failing("train/mood/comb", StepError("out of luck")))
    outcome, _ = go()
    assert set(outcome.done) == {
        "train/mood/comb",
        "evaluate/mood/COMB/de/test",
        "evaluate/mood/COMB/en/test",
    }


def test_ctrl_c_closes_the_interval_and_passes(small: Small, go: Callable) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(failing("train/mood/en", KeyboardInterrupt()))
    assert all(one.status in ("done", "interrupted") for one in intervals(small))
    outcome, _ = go()
    assert "train/mood/en" in outcome.done


def test_a_killed_runs_interval_is_closed_at_its_heartbeat(small: Small, go: Callable) -> None:
    home = small.root / ".koinize"
    ledger = Ledger(home / "ledger.jsonl")
    ledger.start(
        "i",
        run="r",
        step="train/mood/de",
        kind="train",
        artifact="a",
        device="d",
        share="1",
        price={},
    )
    started = ledger.intervals()[0].started.timestamp()
    (home / "heartbeat").touch()
    os.utime(home / "heartbeat", (started + 42, started + 42))
    go()
    first = intervals(small)[0]
    assert (first.status, float(first.seconds)) == ("interrupted", pytest.approx(42, abs=0.01))
    assert first.error == "the run was killed; closed at its last heartbeat"


def test_the_ledger_carries_the_price(small: Small, go: Callable) -> None:
    small.spec(SPEC + 'price: {per_hour: "1.50", source: a list, date: 2026-01-02}\n')
    go()
    for one in intervals(small):
        assert one.price == {
            "per_hour": "1.50",
            "currency": "USD",
            "source": "a list",
            "date": "2026-01-02",
        }
        assert one.tokens == 7


def test_a_second_run_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError) as caught, locked(tmp_path):
        pass
    since = str(caught.value).split("since ")[1].split(" (process")[0]
    assert str(caught.value) == (
        f"{tmp_path} another koinize works here since {since} (process {os.getpid()}); "
        "wait for it or stop it"
    )
    with locked(tmp_path):
        assert json.loads((tmp_path / "holder.json").read_text())["pid"] == os.getpid()


def test_the_longest_training_starts_first(small: Small) -> None:
    steps = small.steps()
    missing = [Missing(step, "", float(len(step.rows))) for step in steps.values()]
    spec = load(small.root / "koinize.yaml")
    home = small.root / ".koinize"
    run = running._Run(
        [one for one in missing if one.step.kind == "train"],
        spec,
        small.root,
        home,
        Recorder(),
        None,  # type: ignore[arg-type]
        Ledger(home / "ledger.jsonl"),
        home / "heartbeat",
    )
    assert run._ready()[0].step.name == "train/mood/comb"
