"""Which workers load the model: where at least as much work is left for them as loading takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize.executors import WorkerLost, places_here
from koinize.executors.inline import InlineExecutor
from koinize.ledger.scopes import loading
from koinize.pipeline import run as running
from koinize.pipeline.account import Account, Hand
from koinize.pipeline.kinds import KINDS
from koinize.pipeline.plan import Missing
from koinize.pipeline.step import Step
from koinize.pipeline.warm import Warm
from koinize.pipeline.work import Job
from koinize.spec import Spec, load
from koinize.store import Store
from tests.pipeline.conftest import Small, done_by
from tests.pipeline.test_run import Recorder

LOAD = 10.0


def spec_of(small: Small) -> Spec:
    return load(small.root / "koinize.yaml")


def of_kind(small: Small, kind: str, *seconds: float) -> list[Missing]:
    """As many steps of a kind as there are seconds."""
    steps = [one for one in small.steps().values() if one.kind == kind]
    return [Missing(step, "", each) for step, each in zip(steps, seconds, strict=False)]


def test_while_nobody_knows_how_long_loading_takes_every_worker_is_used(small: Small) -> None:
    ready = of_kind(small, "evaluate", 0.1, 0.1)
    warm = Warm(spec_of(small), 0.0)
    assert warm.worth(ready, 2, []) == (ready, 2)
    warm.take(ready[0].step, 2, 0)
    assert warm.worth(ready[1:], 1, [0.1]) == (ready[1:], 1)


@pytest.mark.parametrize(
    ("seconds", "having", "free", "workers"),
    [
        (0.1, 0, 3, 1),  # somebody has to load
        (19.0, 0, 3, 1),  # two would load 20 s and work 9.5 s each
        (20.0, 0, 3, 2),
        (29.0, 0, 3, 2),
        (30.0, 0, 3, 3),
        (29.0, 1, 3, 1),  # with one that has it: (29 + 10) / 2 less 10 s of loading are 9.5 s
        (30.0, 1, 3, 2),
        (39.0, 1, 3, 2),
        (40.0, 1, 3, 3),  # (40 + 20) / 3 less 10 s are 10 s
        (40.0, 1, 2, 2),  # no more than there are
        (0.1, 2, 2, 2),
    ],
)
def test_a_worker_loads_for_at_least_as_much_work(
    small: Small, seconds: float, having: int, free: int, workers: int
) -> None:
    """By hand: what a worker does, loading included, is the work and all loading by the workers."""
    ready = of_kind(small, "evaluate", *[seconds / 4] * 4)
    warm = Warm(spec_of(small), LOAD)
    for busy in range(having):
        assert warm.take(ready[0].step, 3, busy) == LOAD
    assert warm.worth(ready, free, []) == (ready, workers)


@pytest.mark.parametrize(
    ("seconds", "left", "starts"),
    [
        (9.0, 20.0, False),  # it is soon done beside what the one that has the model does next
        (9.0, 21.0, True),  # nobody else is free soon
        (10.0, 0.1, True),  # as much work as loading takes
    ],
)
def test_little_work_waits_for_the_worker_that_has_the_model(
    small: Small, seconds: float, left: float, starts: bool
) -> None:
    ready, merges = of_kind(small, "evaluate", seconds), of_kind(small, "merge", 1.0)
    warm = Warm(spec_of(small), LOAD)
    warm.take(ready[0].step, 2, 0)
    expected = [*ready, *merges] if starts else merges  # which no model holds back
    assert warm.worth([*ready, *merges], 1, [left]) == (expected, 1)
    assert warm.worth(ready, 1, [left]) == ((ready, 1) if starts else ([], 0))


def test_who_loads_is_remembered_until_the_worker_is_lost(small: Small) -> None:
    spec = spec_of(small)
    evaluation, merge = (of_kind(small, kind, 1.0)[0] for kind in ("evaluate", "merge"))
    warm = Warm(spec, LOAD)
    assert warm.take(merge.step, 2, 0) == 0.0
    assert warm.take(evaluation.step, 2, 0) == LOAD
    assert warm.take(evaluation.step, 2, 0) == 0.0
    assert warm.take(evaluation.step, 2, 1) == LOAD
    assert warm.worth([evaluation], 2, []) == ([evaluation], 2)
    warm.lose(evaluation.step)
    assert warm.worth([evaluation], 2, []) == ([evaluation], 1)
    warm.lose(evaluation.step)
    warm.lose(evaluation.step)
    assert warm.take(evaluation.step, 2, 0) == LOAD


def test_a_worker_keeps_one_model(small: Small) -> None:
    spec = spec_of(small)
    step = of_kind(small, "evaluate", 1.0)[0].step
    judge = replace(step, address=replace(step.address, kind="judge", metric="ner"))
    warm = Warm(spec, LOAD)
    assert [warm.take(step, 2, busy) for busy in (0, 1)] == [LOAD, LOAD]
    assert warm.take(judge, 2, 0) == LOAD
    # One of two has the base yet.
    assert warm.worth([Missing(step, "", 1.0)], 2, []) == ([Missing(step, "", 1.0)], 1)
    assert warm.take(judge, 2, 1) == LOAD
    assert warm.take(step, 2, 0) == LOAD


def test_a_base_in_4_bit_is_another_model(small: Small) -> None:
    spec = spec_of(small)  # which takes it only where it is installed
    training = spec.training.model_copy(update={"load_in_4bit": True})
    spec = spec.model_copy(update={"training": training})
    train, evaluate = (of_kind(small, kind, 1.0)[0].step for kind in ("train", "evaluate"))
    warm = Warm(spec, LOAD)
    assert [warm.take(one, 1, 0) for one in (train, evaluate, train)] == [LOAD] * 3


@given(
    work=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=4),
    load=st.floats(0.0, 50.0),
    having=st.integers(0, 3),
    left=st.lists(st.floats(0.0, 100.0), max_size=3),
    free=st.integers(1, 4),
)
def test_what_is_ready_never_waits_for_nobody(
    step: Step, work: list[float], load: float, having: int, left: list[float], free: int
) -> None:
    """Without anybody at work something starts, and never for more workers than are free."""
    spec = Spec.model_construct(training=None)
    warm = Warm(spec, load)
    for busy in range(having):
        warm.take(step, free + len(left), busy)
    able, workers = warm.worth([Missing(step, "", each) for each in work], free, left)
    assert workers <= free
    assert bool(able) == bool(workers)
    if not left or not load:
        assert able


@given(
    work=st.floats(0.0, 500.0),
    load=st.floats(0.01, 50.0),
    workers=st.integers(1, 6),
)
def test_the_report_reckons_with_as_many_loads(
    step: Step, work: float, load: float, workers: int
) -> None:
    """As for scoring that begins when one worker has trained and all are free."""
    warm = Warm(Spec.model_construct(training=None), load)
    warm.take(step, workers, 0)
    assert warm.worth([Missing(step, "", work)], workers, [])[1] == loading(work, workers, load)


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Step:
    small = Small(tmp_path_factory.mktemp("small"))
    return next(one for one in small.steps().values() if one.kind == "evaluate")


# In a run


class Threads(InlineExecutor):
    """Two workers, each a thread of this process."""

    def __init__(self) -> None:
        self.workers, self.threads = 2, 1
        self.pool = ThreadPoolExecutor(2)

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        return self.pool.submit(function, *arguments)


class Crowd:
    """Does nothing, for a moment, and counts who needs the model at once."""

    def __init__(self, lost: str = "") -> None:
        self.lock, self.now, self.most, self.lost = threading.Lock(), 0, 0, lost

    def __call__(self, job: Job) -> dict[str, object]:
        step = job.step
        needs = KINDS[step.kind].needs_model
        with self.lock:
            self.now += needs
            self.most = max(self.most, self.now)
            lost, self.lost = step.name == self.lost, "" if step.name == self.lost else self.lost
        try:
            time.sleep(0.02)
            if lost:
                raise WorkerLost("its worker was stopped")
            with Store(job.home).building(step.id, step.name, step.identity) as draft:
                draft.facts.update(rows=dict(step.rows), units=step.units, tokens=0)
        finally:
            with self.lock:
                self.now -= needs
        return dict(draft.facts)


@pytest.mark.parametrize("lost", ["", "train/mood/en"])
@pytest.mark.parametrize(("seconds", "most"), [(0.0, 2), (1.0, 2), (1000.0, 1)])
def test_a_run_ends_whoever_loads(
    small: Small, monkeypatch: pytest.MonkeyPatch, seconds: float, most: int, lost: str
) -> None:
    """All steps take a second, so that nothing is worth a thousand seconds of loading."""
    crowd = Crowd(lost)
    done_by(monkeypatch, crowd)
    monkeypatch.setattr(running, "executor_of", lambda spec: Threads())
    missing = [Missing(one, "", 1.0) for one in small.steps().values()]
    spec = load(small.root / "koinize.yaml")
    home = small.root / ".koinize"
    outcome = running.run(missing, spec, small.root, home, Recorder(), list, seconds)
    assert sorted(outcome.done) == sorted(small.steps())
    assert not outcome.failed
    assert crowd.most == most


def test_who_is_late_is_taken_to_be_as_late_again(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account.__new__(Account)
    place = places_here(1)[0]
    hand = Hand([], False, "hand", Decimal(100), Decimal(100), place, expected=8.0)
    for now, left in [(100, 8.0), (106, 2.0), (108, 0.0), (109, 1.0), (120, 12.0)]:
        monkeypatch.setattr(Account, "_now", Decimal(now))
        assert account.left(hand) == left
