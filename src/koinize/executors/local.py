"""Worker processes on this machine.

Two processes of one thread beat one process of two threads by far on LoRA-sized products, so work
is spread over processes first. Workers are spawned, not forked (a forked torch can deadlock), and
end by themselves when the process that started them is gone.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from koinize import machine
from koinize.executors import HERE, Place, WorkerEndedError, nothing, places_here

# Read by a worker's libraries as they load.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# What it does until it sees that its parent is gone may be kept after the next run closed the
# ledger's intervals: a worker has to be gone before somebody can start another run.
PARENT_POLL_SECONDS = 0.1
# What a worker that is asked to end may take to save its work: most end at once.
GRACE_SECONDS = 15.0


class LocalExecutor:
    """`workers` processes with `threads` threads each. One that is stopped gets SIGTERM, and a
    while to save what it has.

    Every process is a pool of its own, with a thread here that waits for it. In one pool for all, a
    single worker that the system kills (out of memory, say) would take the others' work with it.
    """

    def __init__(self, workers: int | str, threads: int | str) -> None:
        self.workers, self.threads = machine.workers_and_threads(workers, threads)
        self._pools: dict[int, ProcessPoolExecutor] = {}  # by the worker's number
        self._idle: list[int] = []
        self._waiters = ThreadPoolExecutor(self.workers)
        self._environment: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        wanted = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        wanted["PYTHONSAFEPATH"] = "1"  # or a worker would look for modules where koinize started
        wanted["TOKENIZERS_PARALLELISM"] = os.environ.get("TOKENIZERS_PARALLELISM", "false")
        self._environment = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        self._pools = {worker: _one_process(worker) for worker in range(self.workers)}
        self._idle = list(self._pools)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._waiters.shutdown(wait=error is None, cancel_futures=error is not None)
        stopped: list[BaseProcess] = []
        for pool in list(
            self._pools.values()
        ):  # a waiter that sees its process die puts in a new pool
            processes = pool._processes or {}  # the pool forgets them when it shuts down
            pool.shutdown(wait=error is None)
            stopped += [] if error is None else list(processes.values())
        _end(stopped)
        self._waiters.shutdown()
        for name, value in self._environment.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

    @property
    def nodes(self) -> Mapping[str, str]:
        """This machine."""
        return {HERE: machine.device()}

    def ask(self, greeting: Callable[[], object] = nothing) -> tuple[Place, ...]:  # noqa: ARG002
        """Equal parts of this machine."""
        return places_here(self.workers)

    def place(self) -> Place:
        """One of those, which are all alike."""
        return places_here(self.workers)[0]

    def ready(self, greeting: Callable[[], object] = nothing) -> None:  # noqa: ARG002
        """Start all processes at once. One that fails says so when it gets work."""
        wait([pool.submit(os.getpid) for pool in self._pools.values()])

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Run it in the next free worker."""
        return self._waiters.submit(self._run, function, arguments)

    def _run(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> Any:  # noqa: ANN401
        worker = self._idle.pop()  # there is one for every thread, the last used is the warmest
        pool = self._pools[worker]
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            self._pools[worker] = _one_process(worker)
            raise WorkerEndedError(_ending(pool)) from error
        finally:
            self._idle.append(worker)


def _ending(pool: ProcessPoolExecutor) -> str:
    """By which signal, or with which code, the process of a broken pool ended."""
    processes = list((pool._processes or {}).values())
    pool.shutdown()  # which waits for them
    code = next((one.exitcode for one in processes if one.exitcode is not None), None)
    if code is None:
        return "no process"
    return f"code {code}" if code >= 0 else signal.Signals(-code).name


def _end(processes: Sequence[BaseProcess]) -> None:
    """Ask processes to end, and kill those that have not after a while."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE_SECONDS
    try:
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:  # also when somebody asks again
        for process in processes:
            process.kill()
            process.join()


def _one_process(worker: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(), machine.gpu_of(worker)),
    )


def _begin(parent: int, gpu: str | None) -> None:
    """Take one GPU, leave Ctrl-C to the parent, and end when it is gone (also by kill -9), and at
    once when there is nothing left to do.
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The first to be registered is the last to be called. After it Python would take torch and what
    # it brought apart, object by object, for a second or more of everybody's waiting.
    atexit.register(os._exit, 0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


executor = LocalExecutor
