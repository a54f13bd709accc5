"""What a Ray cluster has room for, found out before anything is started there.

The looking is done by a process of its own, which is ended in time: to whom it connects, Ray may
wait for ever, and what it does not understand may take the process along.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from koinize import machine
from koinize.errors import InputError
from koinize.executors import HERE, Place, part
from koinize.executors._ray_worker import look

GIB = 2**30
OBJECT_STORE_BYTES = 80 * 2**20  # of a cluster of ours: only facts pass through it
PORT_SECONDS, CONNECT_SECONDS, LOOK_SECONDS = 10.0, 30.0, 300.0
TRIES, BETWEEN_SECONDS = 3, 2.0
WHERE = "machine.address"


@dataclass(frozen=True)
class Asked:
    """What koinize.yaml says. `gpus` and `memory` (GiB) are of each worker."""

    workers: int | str
    threads: int | str
    address: str
    gpus: float | str
    memory: float


@dataclass(frozen=True)
class Room:
    """How many workers each node has room for, with so much for each; what its machine is."""

    threads: int
    gpus: float
    memory: float
    workers: Mapping[str, int]
    devices: Mapping[str, str]

    @property
    def places(self) -> tuple[Place, ...]:
        """One for each worker."""
        return tuple(
            Place(node, self.devices.get(node, ""), part(count))
            for node, count in self.workers.items()
            for _ in range(count)
        )

    def fit(self, has: Mapping[str, float]) -> int:
        """How many workers a node with these resources has room for."""
        parts = [has.get("CPU", 0) / self.threads]
        if self.gpus:
            parts.append(has.get("GPU", 0) / self.gpus)
        if self.memory:
            parts.append(has.get("memory", 0) / GIB / self.memory)
        return int(min(parts) + 1e-9)


def room(asked: Asked, nodes: Mapping[str, Mapping[str, float]]) -> Room:
    """What these nodes, by their resources, have room for. Raises InputError for nothing."""
    gpus = _gpus(asked, nodes.values())
    threads = asked.threads
    if not isinstance(threads, int):
        threads = min(
            (_threads(one, gpus) for one in nodes.values() if _useful(one, gpus)), default=1
        )
    whole = Room(threads, gpus, asked.memory, {}, {})
    most = {node: whole.fit(has) for node, has in sorted(nodes.items())}
    if not any(most.values()):
        raise _no_room(whole, asked.address, nodes.values())
    chosen = spread(most, asked.workers)
    return Room(threads, gpus, asked.memory, chosen, {})


def spread(most: Mapping[str, int], workers: int | str) -> dict[str, int]:
    """At most so many workers, one after the other to each node that has room; "auto": all."""
    left = sum(most.values()) if not isinstance(workers, int) else workers
    chosen = dict.fromkeys(most, 0)
    while left > 0 and chosen != most:
        for node in most:
            if left > 0 and chosen[node] < most[node]:
                chosen[node] += 1
                left -= 1
    return {node: count for node, count in chosen.items() if count}


def _gpus(asked: Asked, nodes: Iterable[Mapping[str, float]]) -> float:
    if not isinstance(asked.gpus, str):
        return asked.gpus
    return 1.0 if any(one.get("GPU", 0) >= 1 for one in nodes) else 0.0


def _useful(has: Mapping[str, float], gpus: float) -> bool:
    return has.get("CPU", 0) >= 1 and has.get("GPU", 0) >= gpus


def _threads(has: Mapping[str, float], gpus: float) -> int:
    """As on one machine: a worker for each GPU, or for each core up to some."""
    cores = has["CPU"]
    beside = has["GPU"] / gpus if gpus else min(cores, machine.MOST_CPU_WORKERS)
    return max(1, int(cores / beside))


def _no_room(whole: Room, address: str, nodes: Iterable[Mapping[str, float]]) -> InputError:
    wants = [f"{whole.threads} CPUs" if whole.threads > 1 else "1 CPU"]
    wants += [f"{whole.gpus:g} GPU"] if whole.gpus else []
    wants += [f"{whole.memory:g} GiB of memory"] if whole.memory else []
    there = sorted(map(_described, nodes))
    kinds = [f"{there.count(one)} x {one}" for one in dict.fromkeys(there)]
    return InputError(
        f"no node of the cluster has room for a worker; there are {'; '.join(kinds) or 'none'}",
        where=address or "machine",
        expected=f"a node with {', '.join(wants)}",
        remedy="ask for less under `machine`, or add such a node before the run",
    )


def _described(has: Mapping[str, float]) -> str:
    memory = has.get("memory", 0) / GIB
    return f"{has.get('CPU', 0):g} CPU, {has.get('GPU', 0):g} GPU, {memory:.1f} GiB"


def room_here(asked: Asked) -> Room:
    """What this machine has room for, of which koinize makes a cluster."""
    gpus = float(len(machine.gpus()))
    each = asked.gpus if not isinstance(asked.gpus, str) else min(1.0, gpus)
    workers = asked.workers
    if workers == "auto" and each and gpus >= each:
        workers = int(gpus / each)
    count, threads = machine.workers_and_threads(workers, asked.threads)
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    has = {"CPU": float(count * threads), "GPU": gpus, "memory": memory}
    found = room(Asked(count, threads, "", each, asked.memory), {HERE: has})
    return Room(found.threads, found.gpus, found.memory, found.workers, {HERE: machine.device()})


def start_here(found: Room) -> None:
    """Start a cluster of this machine, and connect to it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _connect(
        "local",
        num_cpus=found.workers[HERE] * found.threads,
        num_gpus=len(machine.gpus()),
        _memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
    )


def connect(address: str) -> None:
    """Connect this process to a cluster. Raises InputError for an address where there is none."""
    require_port(address)
    try:
        _connect_patiently(address)
    except (ConnectionAbortedError, RuntimeError) as error:  # to another Ray or Python, say
        said = " ".join(str(error).split())
        raise InputError(f"cannot be used: {said}", where=address) from error
    except ConnectionError as error:
        raise not_there(address) from error


def _connect_patiently(address: str) -> None:
    """A client server starts a process for each client, which sometimes fails."""
    for _ in range(TRIES - 1):
        try:
            _connect(address)
        except ConnectionAbortedError:
            time.sleep(BETWEEN_SECONDS)
        else:
            return
    _connect(address)


def _connect(address: str, **settings: Any) -> None:  # noqa: ANN401
    # What Ray hears of its nodes it prints on standard output, where `--json` has to be alone.
    vars(import_module("ray._private.worker"))["print_to_stdstream"] = lambda *_, **__: None
    ours = signal.getsignal(signal.SIGTERM)  # Ray puts its own there
    try:
        ray.init(address, log_to_driver=False, logging_level="critical", **settings)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


def not_there(address: str) -> InputError:
    """What is told of an address that is no Ray, or out of reach."""
    return InputError(
        "no Ray cluster answers there",
        where=f"{WHERE}: {address}",
        remedy="start one (`ray start --head`), mend the address, or leave it out: koinize then "
        "starts one on this machine",
    )


def alive() -> dict[str, Mapping[str, float]]:
    """The resources of each node that is there, by its id."""
    return {one["NodeID"]: one["Resources"] for one in ray.nodes() if one["Alive"]}


def on(node: str) -> NodeAffinitySchedulingStrategy:
    """There and nowhere else."""
    return NodeAffinitySchedulingStrategy(node, soft=False)


def ask(asked: Asked, greeting: Callable[[], object]) -> Room:
    """What the cluster at an address has room for, every node of it greeted."""
    require_port(asked.address)  # before half a second goes into another process
    with _process() as (pool, end):
        try:
            pool.submit(_connect_quietly, asked.address).result(CONNECT_SECONDS)
            found: Room = pool.submit(_look, asked, greeting).result(LOOK_SECONDS)
            return found
        except (TimeoutError, BrokenProcessPool) as error:
            raise not_there(asked.address) from error
        finally:
            end()


def require_port(address: str) -> None:
    """Raise InputError where nothing listens: Ray would try for half a minute or longer."""
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection((parts.hostname, parts.port), PORT_SECONDS).close()
    except (OSError, ValueError) as error:  # ValueError: no port has such a number
        raise not_there(address) from error


@contextmanager
def _process() -> Iterator[tuple[ProcessPoolExecutor, Callable[[], None]]]:
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def end() -> None:
        for process in list((pool._processes or {}).values()):
            process.kill()

    with pool:
        yield pool, end


def _connect_quietly(address: str) -> None:
    """For a process of its own: Ray's C++ writes where it likes."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    connect(address)


def _look(asked: Asked, greeting: Callable[[], object]) -> Room:
    try:
        found = room(asked, alive())
        devices = _greeted(list(found.workers), greeting)
    finally:
        ray.shutdown()
    left = {node: count for node, count in found.workers.items() if node in devices}
    if not left:
        raise InputError("all nodes left while they were asked", where=asked.address)
    return Room(found.threads, found.gpus, found.memory, left, devices)


def _greeted(nodes: Sequence[str], greeting: Callable[[], object]) -> dict[str, str]:
    """What each node is; without those that left in this very moment."""
    remote = ray.remote(max_retries=0, num_cpus=0)(look)
    asking = {one: remote.options(scheduling_strategy=on(one)).remote(greeting) for one in nodes}
    devices = {}
    for node, reference in asking.items():
        try:
            devices[node] = ray.get(reference)
        except RayTaskError as error:
            raise _cause(error, node) from error
        except RayError:
            continue
    return devices


def _cause(error: RayTaskError, node: str) -> BaseException:
    """What a node said; of a node without koinize, that."""
    if isinstance(error.cause, ModuleNotFoundError) or "ModuleNotFoundError" in str(error):
        return InputError(
            f"the node {node[:8]} lacks a package: {error.cause or 'koinize'}",
            where=WHERE,
            remedy="install the same koinize on every node",
        )
    cause: BaseException = error.cause
    return cause
