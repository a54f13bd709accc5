"""Do what is missing: in parallel where the machine allows, every interval in the ledger."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from koinize import machine
from koinize.digest import short
from koinize.errors import BrokenError, InputError, KoinizeError
from koinize.executors import Executor, executors
from koinize.files import parse_json, read_bytes
from koinize.ledger import GATE, LOAD, MILLISECOND, PROVISION, Heartbeat, Interval, Ledger
from koinize.ledger.energy import Meter, metering
from koinize.pipeline.plan import Missing, Plan
from koinize.pipeline.step import Step
from koinize.pipeline.work import Job, perform
from koinize.spec import Spec
from koinize.store import Home, Store
from koinize.store.durable import own_folder, write_briefly
from koinize.store.typed import typed

POLL_SECONDS = 0.25
MILLIONTH = Decimal("0.000001")


class Watcher(Protocol):
    """Whoever shows how far a run is."""

    def planned(self, todo: Plan) -> None:
        """What is about to be done."""

    def started(self, step: Step) -> None:
        """A worker began this step."""

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


@dataclass
class _Running:
    step: Step
    why: str
    interval: str
    began: Decimal  # seconds since the run began, by its monotonic clock
    job: Job


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
    missing: Sequence[Missing], spec: Spec, root: Path, home: Path, watcher: Watcher
) -> Outcome:
    """Do the missing steps. The caller holds the lock.

    One failed step ends what depends on it and nothing else. KeyboardInterrupt passes through,
    after the steps in hand were stopped and their intervals closed. Every second of the machine is
    in one interval: starting the workers, loading the model into each, the steps, and idle time.
    """
    ledger = Ledger(Home(home).ledger)
    store = Store(home)
    ledger.close_abandoned(Heartbeat.read(Home(home).heartbeat), partial(_kept, store))
    if not missing:
        return Outcome()
    workers, threads = machine.workers_and_threads(spec.machine.workers, spec.machine.threads)
    executor = executors.get(spec.machine.executor)(workers, threads)
    with metering() as meter:
        work = _Run(missing, spec, root, home, watcher, executor, ledger, meter)
        try:
            with executor:
                work.go()
        except BaseException as problem:
            # The workers are gone by now: what they have not committed they never will.
            work.stop("stopped by the user" if isinstance(problem, KeyboardInterrupt) else problem)
            raise
        finally:
            work.close_run()
            shutil.rmtree(Home(home).progress, ignore_errors=True)
            store.sweep()
    return work.outcome


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
    return loading if interval.kind == LOAD else artifact.facts


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
        ledger: Ledger,
        meter: Meter | None = None,
    ) -> None:
        self.waiting = {one.step.id: one for one in missing}
        self.spec, self.root, self.home = spec, root, home
        self.watcher, self.executor, self.ledger = watcher, executor, ledger
        self.meter = meter
        self.price = spec.price.record() if spec.price else {}
        self.running: dict[Future[dict[str, Any]], _Running] = {}
        self.open: dict[str, _Running] = {}  # intervals that the ledger has no end of yet
        self.outcome = Outcome()
        self.name = uuid.uuid4().hex[:8]

    def go(self) -> None:
        self._beat()
        self._provision()
        while self.waiting or self.running:
            machine.stop_if_asked()
            self._fill()
            finished, _ = wait(self.running, POLL_SECONDS, FIRST_COMPLETED)
            self._beat()
            for future in finished:
                self._finish(future, self.running.pop(future))
            for one in self.running.values():
                self._show(one)
            if not self.running and not self._ready():
                self.outcome.skipped = [one.step.name for one in self.waiting.values()]
                break

    def stop(self, why: object) -> None:
        """End the intervals in hand: of what was kept as done, of the rest as interrupted."""
        for one in list(self.open.values()):
            facts = self._facts(one)
            if facts is None:
                self._close(one, "interrupted", {}, str(why))
            else:
                self._close(one, "done", facts, "")

    def _beat(self) -> None:
        """Leave a sign of life, and read the meter before one of its counters wraps."""
        now = self.ledger.at(self.name)
        Heartbeat(time.time(), self.name, now).write(Home(self.home).heartbeat)
        if self.meter:
            self.meter.sample()

    def _provision(self) -> None:
        device, run = machine.device(), self.name
        kind = PROVISION
        with self.ledger.recording(kind, kind=kind, device=device, price=self.price, run=run) as it:
            self._hold(PROVISION, Decimal(1))
            self.executor.ready()
            it.energy = self._energy(self._release(PROVISION))

    def close_run(self) -> None:
        """Account for the machine time in which a worker had nothing to do."""
        if self.meter:
            self.meter.sample()
        self.ledger.close_run(
            self.name,
            self.ledger.at(self.name),
            device=machine.device(),
            price=self.price,
            energy=self._energy(self.meter.idle if self.meter else None),
        )

    def _ready(self) -> list[Missing]:
        """What could start now, the longest training first so that no worker waits for it."""
        blocked = self.waiting.keys() | {one.step.id for one in self.running.values()}
        ready = [one for one in self.waiting.values() if not blocked.intersection(one.step.needs)]
        failed = set(self.outcome.failed)
        ready = [one for one in ready if one.step.name not in failed]
        return sorted(ready, key=lambda one: -one.seconds if one.step.kind == "train" else 0.0)

    def _fill(self) -> None:
        while len(self.running) < self.executor.workers and (ready := self._ready()):
            self._start(self.waiting.pop(ready[0].step.id))

    def _start(self, missing: Missing) -> None:
        step = missing.step
        interval = f"{self.name}-{short(step.id)}"
        job = Job(step, self.spec, self.root, self.home, self.executor.threads)
        one = _Running(step, missing.why, interval, self.ledger.at(self.name), job)
        self.ledger.start(
            interval,
            step=step.name,
            kind=step.kind,
            why=one.why,
            address=step.address,
            sort=step.sort,
            **self._place(one),
        )
        self._hold(interval, self._share)
        self.watcher.started(step)
        self.open[interval] = one
        self.running[self.executor.submit(perform, job)] = one

    @property
    def _share(self) -> Decimal:
        """What one worker holds of the machine; all of them together hold no more than all."""
        return (1 / Decimal(self.executor.workers)).quantize(MILLIONTH, ROUND_DOWN)

    def _place(self, one: _Running) -> dict[str, Any]:
        """What the intervals of a step and of loading its model have in common."""
        return {
            "run": self.name,
            "artifact": one.step.id,
            "device": machine.device(),
            "share": f"{self._share.normalize():f}",
            "price": self.price,
            "at": one.began,
        }

    def _hold(self, name: str, share: Decimal) -> None:
        if self.meter:
            self.meter.hold(name, share)

    def _release(self, name: str) -> Decimal | None:
        return self.meter.release(name) if self.meter else None

    def _energy(self, joules: Decimal | None) -> dict[str, str]:
        return {} if joules is None or self.meter is None else self.meter.record(joules)

    def _finish(self, future: Future[dict[str, Any]], one: _Running) -> None:
        error = future.exception()
        # A worker may be killed after it kept what it made, and before it could say so.
        facts = self._facts(one) if error else future.result()
        if error is None or facts is not None:
            Store(self.home).point({one.step.name: one.step.id})
            self._close(one, "done", facts or {}, "")
            self.outcome.done.append(one.step.name)
            return
        known = isinstance(error, KoinizeError)
        message = str(error) if known else f"{one.step.name} ended with its worker process: {error}"
        self._close(one, "failed", {}, message)
        self.outcome.failed[one.step.name] = message
        # Its dependents stay in `waiting` with a need that never comes.
        self.waiting[one.step.id] = Missing(one.step, "failed", 0.0)

    def _facts(self, one: _Running) -> Mapping[str, Any] | None:
        """What is recorded of the artifact that this step was to make; None if it did not."""
        artifact = Store(self.home).manifest(one.step.id)
        return artifact.facts if artifact else None

    def _close(self, one: _Running, status: str, facts: Mapping[str, Any], error: str) -> None:
        """End a step's interval; what its worker took to load the model has one of its own.

        The energy of both together was read; between them it is divided by time.
        """
        now = self.ledger.at(self.name)
        whole, joules = now - one.began, self._release(one.interval)
        load = min(whole, Decimal(str(facts.get("load_seconds", 0))).quantize(MILLISECOND))
        loading = None if joules is None else joules * load / whole if whole else Decimal(0)
        del self.open[one.interval]
        if load:  # before the end of the step, without which nobody would miss it
            energy = self._energy(loading)
            self.ledger.loaded(one.interval, load, energy=energy, **self._place(one))
        self.ledger.end(
            one.interval,
            status=status,
            seconds=whole - load,
            tokens=facts.get("tokens", 0),
            units=facts.get("units", 0),
            energy=self._energy(None if joules is None else joules - (loading or 0)),
            error=error,
            at=now,
        )
        self.watcher.ended(one.step, float(whole - load), error)

    def _show(self, one: _Running) -> None:
        try:
            done, total = map(int, read_bytes(one.job.progress_file).split())
        except (OSError, ValueError):
            return
        self.watcher.moved(one.step, done, total)
