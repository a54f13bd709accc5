"""Worker processes on this machine.

Two processes of one thread beat one process of two threads by far on LoRA-sized products, so work
is spread over processes first. Workers are spawned, not forked (a forked torch can deadlock), and
end by themselves when the process that started them is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Any, Self

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PARENT_POLL_SECONDS = 1.0


class LocalExecutor:
    """A pool of `workers` processes with `threads` threads each."""

    def __init__(self, workers: int, threads: int) -> None:
        self.workers, self.threads = workers, threads
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        for variable in THREAD_VARIABLES:
            os.environ[variable] = str(self.threads)  # read by a worker's libraries as they load
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._pool = ProcessPoolExecutor(
            self.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_follow_parent,
            initargs=(os.getpid(),),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._pool is not None  # noqa: S101 - only ever used as a context
        if error is not None:
            for process in list(self._pool._processes.values()):
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Run it in the next free worker."""
        assert self._pool is not None  # noqa: S101 - only ever used as a context
        return self._pool.submit(function, *arguments)


def _follow_parent(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone (also by kill -9)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


executor = LocalExecutor
