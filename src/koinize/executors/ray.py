"""Workers on a Ray cluster: one that is there, or one that koinize starts on this machine.

Each worker is an actor, bound to its node: a process that keeps the base model, and its GPU, until
the run ends (decision 016). A thread here waits for each of them, asks whether it still lives, and
starts it again where its process died but its node did not. What a lost worker had in hand ends
with `WorkerLost`, and is for the pipeline to try again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Any, Self

from koinize.errors import InputError, StepError
from koinize.executors import HERE, Place, WorkerLost, nothing, part

try:
    import ray
    from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

    from koinize.executors import _ray_cluster as cluster
    from koinize.executors._ray_worker import PULSE, Worker
except ModuleNotFoundError as error:
    raise InputError(
        "executor 'ray' needs the package ray", where="machine", remedy="pip install 'koinize[ray]'"
    ) from error

PULSE_SECONDS, SILENT_SECONDS = 5.0, 120.0
NODES_SECONDS = 5.0
START_SECONDS = 300.0  # until a worker is there: others may still use its node
PATIENCE_SECONDS = 60.0  # for the last workers, once the first is there
EMPTY_SECONDS = 600.0  # without any worker, after which nobody waits for a new node

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Work:
    function: Callable[..., Any]
    arguments: tuple[object, ...]
    future: Future[Any]


class _Slot:
    """Room for one worker on one node, and the worker in it."""

    def __init__(self, node: str, share: int) -> None:
        self.node, self.part = node, part(share)
        self.place: Place | None = None  # once there is a worker
        self.actor: Any = None
        self.inbox: SimpleQueue[_Work | None] = SimpleQueue()


class _Silent(Exception):
    """A worker did not answer."""


class RayExecutor:
    """`workers` actors with `threads` CPUs, `gpus` (or a share of one) and `memory` GiB each."""

    def __init__(
        self,
        workers: int | str = "auto",
        threads: int | str = "auto",
        *,
        address: str = "",
        gpus: float | str = "auto",
        memory: float = 0.0,
    ) -> None:
        self.asked = cluster.Asked(workers, threads, address, gpus, memory)
        self._room: cluster.Room | None = None
        self._names: dict[str, str] = {}  # what Ray calls a node -> what we do
        self._slots: list[_Slot] = []
        self._free: deque[_Slot] = deque()
        self._backlog: deque[_Work] = deque()
        self._change = Condition()
        self._ready, self._leaving = False, Event()
        self._refusal: BaseException | None = None
        self._reason = "nobody said why"
        self._empty_since = time.monotonic()

    @property
    def workers(self) -> int:
        """Those that there are; those that there would be, before they are started."""
        if not self._ready:
            return len(self._found.places)
        with self._change:
            count = sum(one.place is not None for one in self._slots)
        if not count and time.monotonic() - self._empty_since > EMPTY_SECONDS:
            raise StepError(
                "all nodes of the cluster left, and no other came",
                where=self.asked.address,
                remedy="run again when there are nodes: finished steps are kept",
            )
        return count

    @property
    def threads(self) -> int:
        """Of each worker."""
        return self._found.threads

    @property
    def nodes(self) -> Mapping[str, str]:
        """Where there is a worker now; this machine even before there is."""
        if not self.asked.address:
            return self._found.devices
        with self._change:
            return {one.place.node: one.place.device for one in self._slots if one.place}

    @property
    def _found(self) -> cluster.Room:
        if self._room is None:
            self.ask()
        assert self._room is not None  # noqa: S101 - `ask` has found it
        return self._room

    def ask(self, greeting: Callable[[], object] = nothing) -> tuple[Place, ...]:
        """The cluster is looked at from a process of its own; nothing is started there yet."""
        here = not self.asked.address
        self._room = cluster.room_here(self.asked) if here else cluster.ask(self.asked, greeting)
        return self._room.places

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._change:
            if error is None:
                self._change.wait_for(self._idle)
            self._leaving.set()
            for work in self._backlog:
                work.future.cancel()
            self._backlog.clear()
            slots = list(self._slots)
        for slot in slots:
            slot.inbox.put(None)
            self._kill(slot)
        ray.shutdown()

    def ready(self, greeting: Callable[[], object] = nothing) -> None:
        """Start the workers, and wait for the last of them no longer than is sensible."""
        self._begin(greeting)
        until = time.monotonic() + START_SECONDS
        with self._change:
            self._change.wait_for(
                lambda: self._refusal or self._up or not self._slots, START_SECONDS
            )
            until = min(until, time.monotonic() + PATIENCE_SECONDS)
            self._change.wait_for(
                lambda: self._refusal or self._up == len(self._slots), until - time.monotonic()
            )
            if self._refusal:
                raise self._refusal
            if not self._up:
                raise StepError(
                    f"no worker started: {' '.join(self._reason.split())}",
                    where=self.asked.address or "ray",
                    remedy="see with `ray status` what holds the nodes, and run again",
                )
            self._ready = True

    def place(self) -> Place:
        """That of the worker that was at work last, which has a model most likely."""
        with self._change:
            found = self._free[-1].place if self._free else None
        return found or self._found.places[0]

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Run it in the next free worker."""
        self._begin(nothing)
        work = _Work(function, arguments, Future())
        with self._change:
            if self._free:
                self._free.pop().inbox.put(work)
            else:
                self._backlog.append(work)
        return work.future

    def _idle(self) -> bool:
        return not self._slots or (not self._backlog and len(self._free) == self._up)

    @property
    def _up(self) -> int:
        return sum(one.place is not None for one in self._slots)

    def _begin(self, greeting: Callable[[], object]) -> None:
        """Connect, start all workers, and watch for nodes that come."""
        if self._slots or self._ready:
            return
        if self.asked.address:
            cluster.connect(self.asked.address)
            self._room = self._room or cluster.room(self.asked, cluster.alive())
        else:
            cluster.start_here(self._found)
            self._names = dict.fromkeys(cluster.alive(), HERE)
        found = self._found
        nodes = {ours: theirs for theirs, ours in self._names.items()}
        for node, count in found.workers.items():
            self._open(nodes.get(node, node), count, greeting)
        Thread(target=self._watch, args=[greeting], daemon=True).start()

    def _open(self, node: str, count: int, greeting: Callable[[], object]) -> None:
        """Start workers on a node, each with the thread that waits for it."""
        slots = [_Slot(node, count) for _ in range(count)]
        with self._change:
            self._slots += slots
        for slot in slots:
            Thread(target=self._serve, args=(slot, greeting), daemon=True).start()

    def _watch(self, greeting: Callable[[], object]) -> None:
        """Use nodes that come while the run goes on, as those that leave may be replaced."""
        known = {one.node for one in self._slots}
        while not self._leaving.wait(NODES_SECONDS):
            with suppress(RayError, ConnectionError, RuntimeError):
                now = cluster.alive()
                known &= now.keys()
                self._leave(now)
                most = {node: self._found.fit(now[node]) for node in now.keys() - known}
                wanted = self.asked.workers
                left = wanted - len(self._slots) if isinstance(wanted, int) else wanted
                for node, count in cluster.spread(most, left).items():
                    known.add(node)
                    self._open(node, count, greeting)
            with self._change:
                if self._up:
                    self._empty_since = time.monotonic()

    def _leave(self, now: Mapping[str, object]) -> None:
        """Give nothing more to workers without work whose nodes are gone."""
        with self._change:
            for slot in [one for one in self._free if one.node not in now]:
                self._free.remove(slot)
                slot.place = None
                slot.inbox.put(None)

    def _serve(self, slot: _Slot, greeting: Callable[[], object]) -> None:
        """Keep a worker in the slot as long as its node is there."""
        try:
            while not self._leaving.is_set() and self._start(slot, greeting):
                self._work(slot)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises when it is shut down
            self._reason = str(error)
        finally:
            with self._change:
                slot.place = None
                self._slots.remove(slot)
                self._change.notify_all()

    def _start(self, slot: _Slot, greeting: Callable[[], object]) -> bool:
        """Start its worker and greet it; whether there is one now."""
        found = self._found
        if slot.node not in cluster.alive():
            return False
        options = {
            "num_cpus": found.threads,
            "num_gpus": found.gpus,
            "memory": int(found.memory * cluster.GIB) or None,
            "concurrency_groups": {PULSE: 1},
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": cluster.on(slot.node),
        }
        slot.actor = ray.remote(**options)(Worker).remote(found.threads)
        try:
            device = ray.get(slot.actor.begin.remote(greeting), timeout=START_SECONDS)
        except RayTaskError as error:  # the first is told, a later one only costs a worker
            self._refusal = self._refusal or error.cause
            logger.warning("a node cannot be used: %s", error.cause)
            return False
        except RayError as error:
            self._reason = str(error)
            return False
        node = self._names.get(slot.node, slot.node)
        with self._change:
            slot.place = Place(node, found.devices[HERE] if node == HERE else device, slot.part)
            self._take_next(slot)
            self._change.notify_all()
        return True

    def _take_next(self, slot: _Slot) -> None:
        """What has waited longest; or be free. Called with the lock."""
        if self._backlog:
            slot.inbox.put(self._backlog.popleft())
        else:
            self._free.append(slot)

    def _work(self, slot: _Slot) -> None:
        """Hand work to the worker until it is lost or the run ends."""
        while (work := slot.inbox.get()) is not None:
            if not work.future.set_running_or_notify_cancel():
                result, error, lost = None, None, False
            else:
                result, error, lost = self._attempt(slot, work)
            with self._change:
                if lost:
                    slot.place = None
                else:
                    self._take_next(slot)
                self._change.notify_all()
            if error is not None:
                work.future.set_exception(error)
            elif not work.future.cancelled():
                work.future.set_result(result)
            if lost:
                self._kill(slot)
                return

    def _attempt(self, slot: _Slot, work: _Work) -> tuple[Any, BaseException | None, bool]:
        """Result, error, and whether the worker is lost."""
        try:
            reference = slot.actor.run.remote(work.function, work.arguments)
            self._listen(slot, reference)
            return ray.get(reference), None, False
        except RayTaskError as error:
            return None, error.cause, False
        except _Silent:
            said = f"did not answer for {SILENT_SECONDS:g} s"
        except OutOfMemoryError:
            said = "was stopped because its node was short of memory"
        except Exception as error:  # noqa: BLE001 - Ray's, or its connection's
            said = "was stopped" if self._leaving.is_set() else self._end_of(slot, error)
        return None, WorkerLost(f"its worker {said}"), True

    def _listen(self, slot: _Slot, reference: Any) -> None:  # noqa: ANN401
        """Wait for a result. Raises _Silent when its worker does not answer for too long.

        Ray tells of a process or a node that died, and not of one that stands still.
        """
        heard, pulse = time.monotonic(), None
        while not ray.wait([reference], timeout=PULSE_SECONDS)[0]:
            pulse = pulse or slot.actor.alive.options(concurrency_group=PULSE).remote()
            if ray.wait([pulse], timeout=0)[0]:
                heard, pulse = time.monotonic(), None
            elif time.monotonic() - heard > SILENT_SECONDS:
                raise _Silent

    def _end_of(self, slot: _Slot, error: Exception) -> str:
        with suppress(RayError, ConnectionError):
            if slot.node not in cluster.alive():
                return "is gone with its node"
        if isinstance(error, ActorUnavailableError):
            return "cannot be reached"
        return f"ended ({type(error).__name__})"

    def _kill(self, slot: _Slot) -> None:
        with suppress(Exception):  # it may be gone, and so may be the cluster
            ray.kill(slot.actor)


executor = RayExecutor
