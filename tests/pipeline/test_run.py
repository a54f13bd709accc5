"""Running: order, failures, interruptions, locks and the ledger, with the work itself faked."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from koinize import machine
from koinize.errors import InputError, StepError
from koinize.executors import WorkerLost
from koinize.ledger import (
    IDLE,
    LOAD,
    PROVISION,
    Heartbeat,
    Interval,
    Ledger,
    elapsed,
    joules,
    total,
)
from koinize.ledger.energy import Counter, Meter
from koinize.pipeline import run as running
from koinize.pipeline.nodes import average
from koinize.pipeline.plan import Missing, Plan
from koinize.pipeline.run import Outcome, locked
from koinize.pipeline.step import Step
from koinize.pipeline.work import Job
from koinize.spec import load
from koinize.store import Store
from tests.pipeline.conftest import SPEC, Small, done_by


class Recorder:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []
        self.seconds: dict[str, float] = {}

    def planned(self, todo: Plan) -> None: ...

    def started(self, step: Step) -> None: ...

    def resumed(self, step: object, done: int, total: int) -> None: ...

    def moved(self, step: Step, done: int, total: int) -> None: ...

    def ended(self, step: Step, seconds: float, error: str) -> None:
        self.ends.append((step.name, error))
        self.seconds[step.name] = seconds


def fake(trouble: Callable[[Step], None]) -> Callable[[Job], dict[str, object]]:
    def perform(job: Job) -> dict[str, object]:
        step = job.step
        with Store(job.home).building(step.id, step.name, step.identity) as draft:
            trouble(step)
            draft.facts.update(rows=dict(step.rows), units=step.units, tokens=7)
        return draft.facts

    return perform


def absent(small: Small) -> list[Missing]:
    """Every step whose artifact is not there."""
    present = Store(small.root / ".koinize").ids()
    return [Missing(one, "", 1.0) for one in small.steps().values() if one.id not in present]


@pytest.fixture
def go(small: Small, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Outcome, Recorder]]:
    def once(trouble: Callable[[Step], None] = lambda step: None) -> tuple[Outcome, Recorder]:
        done_by(monkeypatch, fake(trouble))
        spec = load(small.root / "koinize.yaml")
        home = small.root / ".koinize"
        recorder = Recorder()
        return running.run(absent(small), spec, small.root, home, recorder), recorder

    return once


def everything(small: Small) -> list[Interval]:
    return Ledger(small.root / ".koinize" / "ledger.jsonl").intervals()


def intervals(small: Small) -> list[Interval]:
    """Those of steps."""
    return [one for one in everything(small) if one.kind not in (PROVISION, LOAD, IDLE)]


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


def losing(name: str, workers: int) -> Callable[[Step], None]:
    """A step during which so many workers are lost, one after the other."""
    left = [WorkerLost("its worker is gone with its node")] * workers

    def trouble(step: Step) -> None:
        if step.name == name and left:
            raise left.pop()

    return trouble


def test_what_a_lost_worker_had_in_hand_is_done_again(small: Small, go: Callable) -> None:
    outcome, _ = go(losing("train/mood/comb", 2))
    assert set(outcome.done) == set(small.steps())
    *lost, done = [one for one in intervals(small) if one.step == "train/mood/comb"]
    assert [one.status for one in lost] == ["failed", "failed"]
    said = "train/mood/comb is tried again: its worker is gone with its node"
    assert {one.error for one in lost} == {said}
    assert (done.status, done.why) == ("done", "its worker was lost")
    assert len({one.id for one in (*lost, done)}) == 3
    found = everything(small)
    assert total(found)[0] == pytest.approx(elapsed(found), abs=Decimal("0.01"))


def test_a_step_that_costs_three_workers_is_at_fault_itself(small: Small, go: Callable) -> None:
    outcome, _ = go(losing("train/mood/comb", 3))
    said = "train/mood/comb ended with its worker process: its worker is gone with its node"
    assert outcome.failed == {"train/mood/comb": said}
    found = [one for one in intervals(small) if one.step == "train/mood/comb"]
    assert [one.status for one in found] == ["failed"] * 3


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
    price = {"per_hour": "1.50", "currency": "USD", "source": "a list", "date": "2026-01-02"}
    assert all(one.price == price for one in everything(small))
    assert {one.tokens for one in intervals(small)} == {7}


def test_a_machine_whose_device_has_a_price_costs_that(small: Small, go: Callable) -> None:
    word = machine.device().split()[-1].upper()
    own = f'{{"{word}": {{per_hour: "2.50", source: ours, date: 2026-03-04}}}}'
    price = f'price: {{per_hour: "1.50", source: a list, date: 2026-01-02, devices: {own}}}\n'
    small.spec(SPEC + price)
    go()
    expected = {"per_hour": "2.50", "currency": "USD", "source": "ours", "date": "2026-03-04"}
    assert all(one.price == expected for one in everything(small))


def test_a_plan_on_several_kinds_of_machine_reckons_with_the_mean_of_their_prices() -> None:
    one = {"per_hour": "1.5", "currency": "EUR", "source": "a list", "date": "2026-01-02"}
    other = {**one, "per_hour": "4", "date": "2026-02-03"}
    assert average([one, one]) == one
    mean = {"per_hour": "2.75", "currency": "EUR", "date": "2026-02-03"}
    assert average([one, other]) == {**mean, "source": "the mean of 2 machines"}
    assert average([{}, {}]) == {}


def working(seconds: float, load: float = 0.0) -> Callable[[Job], dict[str, object]]:
    """Steps that take so long, of which the first is partly the loading of the model."""
    first = [load]

    def perform(job: Job) -> dict[str, object]:
        step = job.step
        with Store(job.home).building(step.id, step.name, step.identity) as draft:
            time.sleep(seconds)
            draft.facts.update(load_seconds=first.pop() if first else 0.0)
        return draft.facts

    return perform


def run_with(small: Small, monkeypatch: pytest.MonkeyPatch, perform: object) -> Recorder:
    done_by(monkeypatch, perform)
    home = small.root / ".koinize"
    spec = load(small.root / "koinize.yaml")
    recorder = Recorder()
    running.run(absent(small)[:6], spec, small.root, home, recorder)
    return recorder


def test_the_intervals_of_a_run_are_its_wall_time_on_the_whole_machine(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_with(small, monkeypatch, working(0.003, load=0.002))
    found = everything(small)
    wall = elapsed(found)
    assert wall > Decimal("0.018")
    assert total(found)[0] == pytest.approx(wall, abs=Decimal("0.001"))
    [idle] = [one for one in found if one.kind == IDLE]
    assert (idle.seconds, idle.status, idle.artifact) == (wall, "done", "")
    assert found[0].kind == PROVISION
    assert found[0].share == 1


def test_loading_the_model_is_an_interval_of_its_own_and_no_part_of_the_step(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = run_with(small, monkeypatch, working(0.01, load=0.006))
    [loading] = [one for one in everything(small) if one.kind == LOAD]
    step = next(one for one in intervals(small) if one.artifact == loading.artifact)
    assert (loading.step, loading.status, loading.seconds) == ("load", "done", Decimal("0.006"))
    assert loading.end == step.begin
    assert (loading.share, loading.device) == (step.share, step.device)
    assert step.seconds >= Decimal("0.004")
    assert recorder.seconds == {one.step: float(one.seconds) for one in intervals(small)}


def test_a_load_is_never_longer_than_its_step(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's clock is another process's: it may be a little ahead."""
    run_with(small, monkeypatch, working(0.0, load=99.0))
    [loading] = [one for one in everything(small) if one.kind == LOAD]
    step = next(one for one in intervals(small) if one.artifact == loading.artifact)
    assert step.seconds == 0
    assert total(everything(small))[0] == pytest.approx(elapsed(everything(small)))


def test_energy_is_divided_and_adds_up(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    level = [0]

    def read() -> int:
        level[0] += 1000  # a joule with every reading
        return level[0]

    @contextmanager
    def fake() -> Iterator[Meter]:
        yield Meter([Counter(read, 1000)], "a fake meter")

    monkeypatch.setattr(running, "metering", fake)
    run_with(small, monkeypatch, working(0.004, load=0.001))
    found = everything(small)
    assert {one.energy["source"] for one in found} == {"a fake meter"}
    assert all(one.joules is not None and one.joules >= 0 for one in found)
    read_in_all = Decimal(level[0]) / 1000 - 1  # the first reading is where it begins
    assert joules(found) == pytest.approx(read_in_all, abs=Decimal("0.001") * len(found))


def test_without_a_meter_no_energy_is_recorded(small: Small, go: Callable) -> None:
    go()
    assert all(one.energy == {} for one in everything(small))


def test_a_stopped_run_has_its_idle_time_too(small: Small, go: Callable) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(failing("train/mood/en", KeyboardInterrupt()))
    found = everything(small)
    assert found[-1].kind == IDLE
    assert total(found)[0] == pytest.approx(elapsed(found), abs=Decimal("0.001"))


def test_a_killed_run_gets_its_end_and_its_idle_time_from_the_next_one(
    small: Small, go: Callable
) -> None:
    """By its own clock: that of the wall is set back by a day in between."""
    home = small.root / ".koinize"
    ledger = Ledger(home / "ledger.jsonl")
    common = {"run": "r", "kind": "train", "device": "d", "price": {}}
    for name, at in (("a", "1.000"), ("b", "2.000")):
        what = {"step": name, "artifact": name, "share": "0.5", "at": Decimal(at)}
        ledger.start(name, **common, **what)
    ledger.end("a", status="done", seconds=Decimal(3), at=Decimal(4))
    heartbeat = home / "heartbeat"
    Heartbeat(0.0, "r", Decimal("9.5")).write(heartbeat)
    os.utime(heartbeat, (1, 1))
    go()
    a, b, idle = [one for one in everything(small) if one.run == "r"]
    assert (a.status, a.seconds) == ("done", 3)
    assert (b.status, b.seconds) == ("interrupted", Decimal("7.500"))
    # 9.5 s of the machine, of which half was held for 3 + 7.5 s
    assert (idle.kind, idle.seconds) == (IDLE, Decimal("9.5"))
    assert idle.machine_seconds == pytest.approx(Decimal("4.25"), abs=Decimal("1e-8"))
    before = (home / "ledger.jsonl").read_bytes()
    go()
    assert (home / "ledger.jsonl").read_bytes() == before, "once is enough"


def test_a_run_killed_after_it_kept_an_artifact_has_the_loading_before_it(
    small: Small, go: Callable
) -> None:
    home, step = small.root / ".koinize", small.steps()["train/mood/de"]
    what = {"run": "r", "kind": "train", "artifact": step.id, "device": "d", "price": {}}
    Ledger(home / "ledger.jsonl").start("i", **what, step=step.name, share="1", at=Decimal(1))
    with Store(home).building(step.id, step.name, step.identity) as draft:
        draft.facts.update(seconds=2.5, load_seconds=0.75)
    go()
    train, loading = [one for one in everything(small) if one.run == "r"]
    assert (train.kind, train.status, train.seconds) == ("train", "done", Decimal("2.5"))
    assert (loading.kind, loading.status, loading.seconds) == (LOAD, "done", Decimal("0.75"))
    assert (loading.artifact, loading.end) == (step.id, train.begin)


def test_a_gate_that_was_killed_is_not_taken_for_the_merge_that_it_judged(
    small: Small, go: Callable
) -> None:
    """It names the merge's artifact, which was there before it."""
    go()
    merge = next(one for one in intervals(small) if one.kind == "merge")
    ledger = Ledger(small.root / ".koinize" / "ledger.jsonl")
    what = {"run": "g", "kind": "gate", "artifact": merge.artifact, "device": "d", "price": {}}
    ledger.start("i", **what, step="gate/mood", share="1")
    go()
    gate = next(one for one in everything(small) if one.run == "g")
    assert (gate.status, gate.tokens) == ("interrupted", 0)


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
        None,  # type: ignore[arg-type]
    )
    assert run._ready()[0].step.name == "train/mood/comb"


def test_judges_come_last_and_metric_by_metric(small: Small) -> None:
    """So that a worker loads each judge once, where nothing else is left to do."""
    train = next(one for one in small.steps().values() if one.kind == "train")
    asked = [("judge", "ner"), ("judge", "nli"), ("judge", "ner"), ("train", "")]
    steps = [
        replace(train, address=replace(train.address, kind=kind, metric=metric))
        for kind, metric in asked
    ]
    turns = sorted((Missing(step, "", 9.0) for step in steps), key=running._turn)
    assert [(one.step.kind, one.step.address.metric) for one in turns] == [
        ("train", ""),
        ("judge", "ner"),
        ("judge", "ner"),
        ("judge", "nli"),
    ]


def test_a_signal_whose_exception_was_lost_stops_the_run_before_the_next_step(
    small: Small, go: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python drops what is raised while it finalizes an object, also KeyboardInterrupt."""
    monkeypatch.setattr(machine, "stop_asked", threading.Event())

    def asked_in_the_middle(step: Step) -> None:
        if step.name == "train/mood/de":
            machine.stop_asked.set()

    with pytest.raises(KeyboardInterrupt):
        go(asked_in_the_middle)
    assert [one.status for one in intervals(small)][-1] == "done"
    assert intervals(small)[-1].step == "train/mood/de"
    machine.stop_asked.clear()
    go()
    assert absent(small) == []
