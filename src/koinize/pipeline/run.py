"""Do what is missing: in parallel where the machine allows, every interval in the ledger."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from koinize import machine
from koinize.errors import BrokenError, InputError, KoinizeError
from koinize.executors import Executor, WorkerEndedError, WorkerLost
from koinize.files import parse_json, read_bytes
from koinize.ledger import GATE, LOAD, Heartbeat, Interval, Ledger, Saved
from koinize.ledger.address import SEARCH
from koinize.ledger.energy import metering
from koinize.pipeline.account import Account, Hand
from koinize.pipeline.attempt import last_attempt, saved
from koinize.pipeline.joining import joined
from koinize.pipeline.margins import commit_margins
from koinize.pipeline.memory import workers_of_a_gpu
from koinize.pipeline.nodes import executor_of, greeting, pricing
from koinize.pipeline.plan import Missing, Plan
from koinize.pipeline.step import Step
from koinize.pipeline.warm import Warm
from koinize.pipeline.work import Failure, Job, ended, perform, perform_together
from koinize.spec import Spec
from koinize.store import Home, Store
from koinize.store.durable import own_folder, write_briefly
from koinize.store.typed import typed

POLL_SECONDS = 0.25
MOST_LOST = 3  # workers, after which it is taken to be the step's own fault
AGAIN = "its worker was lost"


class Watcher(Protocol):
    """Whoever shows how far a run is."""

    def planned(self, todo: Plan) -> None:
        """What is about to be done."""

    def started(self, step: Step) -> None:
        """A worker began this step."""

    def resumed(self, step: Step, done: int, total: int) -> None:
        """It goes on after `done` of `total` parts, which an earlier run did."""

    def moved(self, step: Step, done: int, total: int) -> None:
        """It did `done` of `total` parts of it."""

    def ended(self, step: Step, seconds: float, error: str) -> None:
        """It is over after so many seconds, loading the model before it not among them.

        An empty error means that its artifact is committed.
        """


@dataclass
class Outcome:
    """What a run did. `failed` maps the names of failed steps to their messages."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the project's lock. Raises InputError that says who holds it when it is taken."""
    own_folder(home)
    Home(home).refuse_links()
    lock = FileLock(Home(home).lock, blocking=False)
    holder = Home(home).holder
    try:
        lock.acquire()
    except Timeout as error:
        try:
            who = typed(dict[str, str | int], parse_json(read_bytes(holder)))
        except (OSError, ValueError, KoinizeError):
            who = {}
        since, process = who.get("since", "?"), who.get("pid", "?")
        raise InputError(
            f"another koinize works here since {since} (process {process})",
            where=str(home),
            remedy="wait for it or stop it",
        ) from error
    try:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        write_briefly(holder, json.dumps({"pid": os.getpid(), "since": now}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def run(
    missing: Sequence[Missing],
    spec: Spec,
    root: Path,
    home: Path,
    watcher: Watcher,
    more: Callable[[], Sequence[Missing]] = list,
    load: float = 0.0,
) -> Outcome:
    """Do the missing steps. The caller holds the lock. `more` is asked what is missing now when all
    is done that waits for no search. `load`: seconds to load the model, if that is known.

    One failed step ends what depends on it and nothing else. KeyboardInterrupt passes through,
    after the steps in hand were stopped and their intervals closed. Every second of the machine is
    in one interval: starting the workers, loading the model into each, the steps, and idle time.
    """
    ledger = Ledger(Home(home).ledger)
    store = Store(home, spec.store)
    heartbeat = Heartbeat.read(Home(home).heartbeat)
    ledger.close_abandoned(heartbeat, partial(_kept, store), partial(_saved, store))
    if not missing:
        return Outcome()
    executor = executor_of(spec)
    if spec.machine.address:
        root, home = root.absolute(), home.absolute()  # other machines are elsewhere
    with metering() as meter:
        account = Account(Home(home), ledger, meter, pricing(spec))
        work = _Run(missing, spec, root, home, watcher, executor, account, more, load)
        try:
            with executor, greeting(spec, home) as greets:
                work.go(greets)
        except BaseException as problem:
            # The workers are gone by now: what they have not committed they never will.
            work.stop("stopped by the user" if isinstance(problem, KeyboardInterrupt) else problem)
            raise
        finally:
            account.close()
            clear(store)
    return work.outcome


def clear(store: Store) -> None:
    """Remove what belongs to a run at work: nobody else's is going on, for the lock is held."""
    shutil.rmtree(store.home.progress, ignore_errors=True)
    store.sweep()


def _kept(store: Store, interval: Interval) -> Mapping[str, Any] | None:
    """What the artifact of a step says of its making; None unless it is there."""
    makes = interval.artifact and interval.kind != GATE  # that one judges what is there already
    try:
        artifact = store.manifest(interval.artifact) if makes else None
    except BrokenError:
        return None
    if artifact is None:
        return None
    loading = {"seconds": artifact.facts.get("load_seconds", 0)}
    return loading if interval.kind == LOAD else last_attempt(artifact.facts)


def _saved(store: Store, interval: Interval) -> Saved | None:
    """What a killed step had saved of itself."""
    return saved(store, interval.artifact, interval.id) if interval.artifact else None


class _Run:
    """The state of one run: what waits, what is in hand, what is over."""

    def __init__(
        self,
        missing: Sequence[Missing],
        spec: Spec,
        root: Path,
        home: Path,
        watcher: Watcher,
        executor: Executor,
        account: Account,
        more: Callable[[], Sequence[Missing]] = list,
        load: float = 0.0,
    ) -> None:
        self.waiting = {one.step.id: one for one in missing}
        self.predicted: dict[str, float] = {}  # seconds of what was started, by the step's id
        self.spec, self.root, self.home = spec, root, home
        self.store = Store(home, spec.store)
        self.watcher, self.executor, self.account = watcher, executor, account
        self.running: dict[Future[dict[str, Any]], Hand] = {}
        self.outcome = Outcome()
        self.more, self.decided = more, False
        self.warm = Warm(spec, load)

    def go(self, greets: Callable[[], object]) -> None:
        self.account.provision(self.executor, greets)
        steps = [one.step for one in self.waiting.values()]
        commit_margins(self.account.ledger, self.spec, steps)  # before the first of them
        while self.waiting or self.running:
            machine.stop_if_asked()
            self._fill()
            if not self.running and self._ready():
                time.sleep(POLL_SECONDS)  # until there is a machine again
            finished, _ = wait(self.running, POLL_SECONDS, FIRST_COMPLETED)
            self.account.beat(self.executor.nodes)
            for future in finished:
                self._finish(future, self.running.pop(future))
            for hand in self.running.values():
                self._look(hand)
            if not self.running and not self._ready() and not self._went_on():
                self.outcome.skipped = [one.step.name for one in self.waiting.values()]
                break

    def stop(self, why: object) -> None:
        """End the intervals in hand: of what was kept as done, of the rest as interrupted."""
        for hand, job in self.account.open():
            facts = self._facts(job)
            if facts is None:
                self._close(hand, job, "interrupted", {}, str(why))
            else:
                self._close(hand, job, "done", facts, "")

    def _ready(self) -> list[Missing]:
        """What could start now, the longest training first so that no worker waits for it, and
        judges last, metric by metric, so that a worker changes its model seldom.
        """
        in_hand = {job.step.id for hand in self.running.values() for job in hand.jobs}
        blocked = self.waiting.keys() | in_hand
        ready = [one for one in self.waiting.values() if not blocked.intersection(one.step.needs)]
        failed = set(self.outcome.failed)
        ready = [one for one in ready if one.step.name not in failed and not one.step.waits]
        return sorted(ready, key=_turn)

    def _went_on(self) -> bool:
        """Whether what scores decided, by which all known steps are done, leads to more steps."""
        if self.outcome.failed or not self.decided:
            return False
        self.decided = False
        self.waiting = {one.step.id: one for one in self.more()}
        return bool(self._ready())

    def _fill(self) -> None:
        while (free := self.executor.workers - len(self.running)) > 0:
            left = [self.account.left(hand) for hand in self.running.values()]
            able, parts = self.warm.worth(self._ready(), free, left)
            if not able:
                break
            some = joined(able, parts, self.spec)
            self._start([self.waiting.pop(one.step.id) for one in some])

    def _start(self, some: Sequence[Missing]) -> None:
        threads = self.executor.threads
        place = self.spec, self.root, self.home, threads
        more = bool(self.spec.machine.address), workers_of_a_gpu(self.spec, self.executor.workers)
        jobs = [Job(one.step, *place, self.account.interval(one.step), *more) for one in some]
        loading = self.warm.take(some[0].step, self.executor.workers, len(self.running))
        hand = self.account.begin(some, jobs, self.executor.place(), loading)
        self.predicted.update({one.step.id: one.seconds for one in some})
        for job in jobs:
            self._begin(job.step)
        if hand.together:
            future = self.executor.submit(perform_together, jobs)
        else:
            future = self.executor.submit(perform, jobs[0])
        self.running[future] = hand

    def _begin(self, step: Step) -> None:
        """Tell of a step that begins, or goes on."""
        self.watcher.started(step)
        if reached := self.store.checkpoint(step.id, step.name).read():
            self.watcher.resumed(step, reached["steps"], reached["planned"])

    def _finish(self, future: Future[dict[str, Any]], hand: Hand) -> None:
        error = future.exception()
        told = future.result() if hand.together and not error else {}
        if isinstance(error, WorkerLost | WorkerEndedError):
            self.warm.lose(hand.jobs[0].step)
        for job in list(hand.jobs):
            # A worker may be killed after it kept what it made, and before it could say so.
            facts = self._facts(job) if error or hand.together else last_attempt(future.result())
            if facts is not None:
                self._done(hand, job, facts)
            elif isinstance(error, WorkerLost) and self.account.lost[job.step.id] + 1 < MOST_LOST:
                self._again(hand, job, error)
            else:
                self._failed(hand, job, told.get(job.step.id) or _ended_by(error, job))

    def _done(self, hand: Hand, job: Job, facts: Mapping[str, Any]) -> None:
        with suppress(InputError):  # a store out of reach: all names are written in the end
            self.store.point({job.step.name: job.step.id})
        self._close(hand, job, "done", facts, "")
        self.outcome.done.append(job.step.name)
        tried = job.step.kind == "train" and self.spec.training.retries > 0
        chosen = job.step.kind == "select" and self.spec.training.seeds > 1
        self.decided |= tried or chosen or job.step.kind == SEARCH

    def _again(self, hand: Hand, job: Job, error: WorkerLost) -> None:
        """Let another worker try; what this one did is lost, and recorded as that."""
        self._close(hand, job, "failed", {}, f"{job.step.name} is tried again: {error}")
        self.account.lost[job.step.id] += 1
        self.waiting[job.step.id] = Missing(job.step, AGAIN, self.predicted[job.step.id])

    def _failed(self, hand: Hand, job: Job, failure: Failure) -> None:
        share = {"seconds": failure["seconds"]} if "seconds" in failure else {}
        self._close(hand, job, "failed", share, failure["error"])
        self.outcome.failed[job.step.name] = failure["error"]
        # Its dependents stay in `waiting` with a need that never comes.
        self.waiting[job.step.id] = Missing(job.step, "failed", 0.0)

    def _close(
        self, hand: Hand, job: Job, status: str, facts: Mapping[str, Any], error: str
    ) -> None:
        seconds = self.account.end(hand, job, status, facts, error)
        self.watcher.ended(job.step, float(seconds), error)

    def _facts(self, job: Job) -> Mapping[str, Any] | None:
        """What is recorded of the artifact that this step was to make; None if it did not."""
        try:
            artifact = self.store.manifest(job.step.id)
        except (InputError, BrokenError):  # out of reach, or no manifest: the step itself says so
            return None
        return last_attempt(artifact.facts) if artifact else None

    def _look(self, hand: Hand) -> None:
        """Show how far it is. Of several steps that are done at once, end those that are over, but
        for the last, which ends with its worker's work.
        """
        for job in list(hand.jobs):
            several = len(hand.jobs) > 1
            if several and (facts := self._facts(job)) is not None:
                self._done(hand, job, facts)
            elif several and (failure := _told(job)):
                self._failed(hand, job, failure)
            else:
                self._show(job)

    def _show(self, job: Job) -> None:
        try:
            done, total = map(int, read_bytes(job.progress_file).split())
        except (OSError, ValueError):
            return
        self.watcher.moved(job.step, done, total)


def _turn(one: Missing) -> tuple[bool, str, float]:
    step = one.step
    return step.kind == "judge", step.address.metric, -one.seconds * (step.kind == "train")


def _ended_by(error: BaseException | None, job: Job) -> Failure:
    """The failure of a step whose worker ended, or could do none of its steps."""
    if isinstance(error, KoinizeError):
        return Failure(error=str(error))
    if isinstance(error, KeyboardInterrupt):
        said = f"{job.step.name} was stopped with its worker process; run again to go on"
        return Failure(error=said)
    return Failure(error=ended(job, error))


def _told(job: Job) -> Failure | None:
    """What a worker said of a step that failed while others went on."""
    try:
        return typed(Failure, parse_json(read_bytes(job.failure_file)))
    except (OSError, ValueError, KoinizeError):
        return None
