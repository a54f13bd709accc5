"""A training that was ended and went on: what plan, ledger, report and gc make of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from koinize import machine
from koinize.ledger import Interval, Ledger
from koinize.ledger.address import read_address
from koinize.pipeline import Project
from koinize.pipeline import run as running
from koinize.pipeline.experience import learn
from koinize.pipeline.plan import Missing
from koinize.pipeline.run import Outcome
from koinize.pipeline.work import Job
from koinize.release import collect, garbage
from koinize.report.costs import Accounts
from koinize.spec import load
from koinize.store import Store
from koinize.store.checkpoint import State
from tests.pipeline.conftest import SPEC, Small, done_by
from tests.pipeline.test_run import Recorder

NAME = "train/mood/de"
STEPS = 10


class Told(Recorder):
    """Remembers where steps went on."""

    def __init__(self) -> None:
        super().__init__()
        self.resumed_at: list[tuple[str, int, int]] = []

    def resumed(self, step, done: int, total: int) -> None:
        self.resumed_at.append((step.name, done, total))


def write(job: Job, store: Store, steps: int, before: int, seconds: float) -> None:
    """A checkpoint after so many of ten steps, of 7 tokens each."""
    state: State = {
        "steps": steps,
        "planned": STEPS,
        "epoch": 0,
        "kept_epoch": 0,
        "tokens": 7 * steps,
        "units": 1000,
        "losses": [1.0] * steps,
        "dev_losses": [],
        "attempt": {
            "interval": job.interval,
            "seconds": seconds,
            "steps": before,
            "tokens": 7 * before,
        },
    }
    place = store.checkpoint(job.step.id, job.step.name)
    place.write(state, lambda path: path.write_bytes(b"tensors"))


@pytest.fixture
def attempt(small: Small, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Outcome, Told]]:
    """Runs the project; of `train/mood/de` it does no more than up to a step, and then `ends`."""

    def once(until: int, ends: BaseException | None = None, at: float = 0.0) -> tuple:
        def perform(job: Job) -> dict[str, object]:
            step, store = job.step, Store(job.home)
            with store.building(step.id, step.name, step.identity) as draft:
                draft.facts.update(rows=dict(step.rows), units=step.units, tokens=0)
                if step.name == NAME:
                    reached = store.checkpoint(step.id, step.name).read()
                    before = reached["steps"] if reached else 0
                    if ends:
                        write(job, store, until, before, at)
                        raise ends
                    done = {"steps": STEPS, "tokens": 70, "units": 1000}
                    draft.facts.update(steps_before=before, tokens_before=7 * before, **done)
            return draft.facts

        done_by(monkeypatch, perform)
        home, told = small.root / ".koinize", Told()
        present = Store(home).ids()
        missing = [Missing(one, "", 1.0) for one in small.steps().values() if one.id not in present]
        spec = load(small.root / "koinize.yaml")
        return running.run(missing, spec, small.root, home, told), told

    return once


def attempts(small: Small) -> list[Interval]:
    ledger = Ledger(small.root / ".koinize" / "ledger.jsonl")
    return [one for one in ledger.intervals() if one.step == NAME]


def test_each_attempt_has_its_own_part_of_the_work(small: Small, attempt: Callable) -> None:
    for until in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            attempt(until, KeyboardInterrupt())
    outcome, told = attempt(STEPS)
    assert told.resumed_at == [(NAME, 5, STEPS)]
    assert NAME in outcome.done
    made = attempts(small)
    assert [one.status for one in made] == ["interrupted", "interrupted", "done"]
    assert [one.tokens for one in made] == [21, 14, 35]
    assert [one.units for one in made] == [300, 200, 500]
    assert [one.lost for one in made] == [made[0].seconds, made[1].seconds, None]
    assert Store(small.root / ".koinize").checkpoints() == set()


def test_what_came_after_the_saving_is_lost(small: Small, attempt: Callable) -> None:
    """An attempt of no time that says it saved after a quarter of an hour lost nothing."""
    with pytest.raises(KeyboardInterrupt):
        attempt(3, KeyboardInterrupt(), at=900.0)
    [one] = attempts(small)
    assert one.lost == 0


def test_a_killed_attempt_is_closed_with_what_it_had_saved(small: Small, attempt: Callable) -> None:
    home = small.root / ".koinize"
    with pytest.raises(KeyboardInterrupt):
        attempt(3, KeyboardInterrupt(), at=2.0)
    ledger, [first] = Ledger(home / "ledger.jsonl"), attempts(small)
    text = ledger.path.read_text().splitlines(keepends=True)
    kept = next(n for n, line in enumerate(text) if first.id in line and '"end"' in line)
    ledger.path.write_text("".join(text[:kept]))
    ledger = Ledger(ledger.path)
    ledger.close_abandoned(
        float(first.begin) + 5.0, saved=lambda one: running._saved(Store(home), one)
    )
    [one] = attempts(small)
    assert (one.status, one.tokens, one.units) == ("interrupted", 21, 300)
    assert float(one.seconds) == pytest.approx(5.0, abs=0.002)
    assert float(one.lost) == pytest.approx(3.0, abs=0.002)


def test_a_worker_that_was_stopped_alone_fails_its_step_with_a_word(
    small: Small, attempt: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by SIGTERM to it and not to the run: then its future has KeyboardInterrupt."""
    from concurrent.futures import Future

    from koinize.executors import executors

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except KeyboardInterrupt as error:
            future.set_exception(error)
        return future

    monkeypatch.setattr(executors.get("inline"), "submit", submit)
    outcome, _ = attempt(3, KeyboardInterrupt())
    said = f"{NAME} was stopped with its worker process; run again to go on"
    assert outcome.failed == {NAME: said}
    assert attempts(small)[0].units == 300


def test_the_plan_counts_what_is_left(
    small: Small, attempt: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned() -> Missing:
        [one] = [one for one in small.project(monkeypatch).plan().missing if one.step.name == NAME]
        return one

    before = planned()
    with pytest.raises(KeyboardInterrupt):
        attempt(4, KeyboardInterrupt())
    after = planned()
    assert after.why == "never done; goes on at step 4 of 10"
    assert after.seconds == pytest.approx(0.6 * before.seconds)


def test_a_beginning_is_garbage_once_nothing_goes_on_from_it(
    small: Small, attempt: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(3, KeyboardInterrupt())
    project = small.project(monkeypatch)
    [begun] = project.store.checkpoints()
    assert begun not in {one.id for one in garbage(project)}
    small.spec(SPEC.replace("epochs: 2", "epochs: 3"))
    project = Project.at(small.root / "koinize.yaml")
    [found] = [one for one in garbage(project) if one.id == begun]
    assert (found.name, found.kind) == (NAME, "train")
    assert found.bytes > len(b"tensors")
    collect(project)
    assert project.store.checkpoints() == set()


def test_settings_of_checkpoints_identify_nothing(small: Small) -> None:
    before = {name: step.id for name, step in small.steps().items()}
    small.spec(SPEC.replace("executor: inline", "executor: inline, checkpoint_seconds: 7"))
    assert {name: step.id for name, step in small.steps().items()} == before


def interval(status: str, seconds: int, units: int, lost: int | None = None, **also) -> Interval:
    plain = {"run": "r", "share": Decimal(1), "device": "d", "error": "", "tokens": 0, "price": {}}
    return Interval(
        id=f"{status}{seconds}",
        step=NAME,
        kind="train",
        artifact="a",
        started=datetime.fromtimestamp(also.pop("at", 0), UTC),
        seconds=Decimal(seconds),
        status=status,
        units=units,
        lost=None if lost is None else Decimal(lost),
        **plain,
    )


def test_a_rate_is_learnt_from_all_attempts_without_what_was_lost() -> None:
    """100 units in 30 - 5 s, 200 in 40 s: 65 s for 300."""
    experience = learn([interval("interrupted", 30, 100, 5), interval("done", 40, 200)])
    [tally] = experience.tallies.values()
    assert (tally.count, tally.seconds, tally.units) == (1, 65.0, 300)
    [alone] = learn([interval("interrupted", 30, 0), interval("done", 40, 200)]).tallies.values()
    assert (alone.seconds, alone.units) == (40.0, 200)


def test_what_a_training_cost_is_the_sum_of_its_attempts() -> None:
    """What was lost is part of it, since it was paid for."""
    work = [
        interval("interrupted", 30, 100, 5),
        interval("done", 40, 200, at=100),
        interval("done", 50, 300, at=200),  # again, later, in one piece
    ]
    step = read_address(NAME, "train")
    source = SimpleNamespace(intervals=work, current={step: "a"}, price=None, tries={})
    accounts = Accounts(source)  # type: ignore[arg-type]
    first, second = accounts.taken([work[1]]), accounts.taken([work[2]])
    assert (first.elapsed, first.machine, first.steps) == (70, 70, 1)
    assert (second.elapsed, second.steps) == (50, 1)


def test_a_stop_waits_for_the_end_of_what_must_not_be_cut() -> None:
    did = []

    def work() -> None:
        with machine.stoppable(), machine.undisturbed():
            with machine.undisturbed():
                os.kill(os.getpid(), signal.SIGTERM)
                did.append("inner")
            did.append("outer")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert did == ["inner", "outer"]
    assert not machine.stop_asked.is_set()


def test_the_records_place_is_in_the_project(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.checkpoints() == set()
    (tmp_path / "checkpoints" / ("f" * 64)).mkdir(parents=True)
    (tmp_path / "checkpoints" / "else").mkdir()
    assert store.checkpoints() == {"f" * 64}
