"""Threads that take one module each, so that products need not be split."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from threadpoolctl import threadpool_limits

from koinize import machine

T = TypeVar("T")


@contextmanager
def worker_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool in which every product runs on its caller's core alone.

    Modules run side by side; one product split over threads could differ in its last bit. On an
    error what has not begun is given up. Enter it last: what it works on must outlive it.
    """
    with _one_core_each, ThreadPoolExecutor(max(1, threads), initializer=_on_one_core) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[str], T], names: Iterable[str], ahead: int
) -> Iterator[tuple[str, T]]:
    """(name, work(name)) in the order of the names, with `ahead` results waiting at most."""
    remaining = iter(names)
    waiting: list[tuple[str, Future[T]]] = []
    waiting.extend((name, pool.submit(work, name)) for name in islice(remaining, ahead))
    while waiting:
        machine.stop_if_asked()
        name, future = waiting.pop(0)
        result = future.result()
        waiting.extend((later, pool.submit(work, later)) for later in islice(remaining, 1))
        yield name, result


def _on_one_core() -> None:
    """torch's limit: this thread's own, and that of threads which begin later."""
    import torch

    torch.set_num_threads(1)


class _OneCoreEach:
    """numpy's limit, which is the whole process': set by the first pool, lifted by the last.

    torch's is each thread's own: here that of the pool's caller, who waits for results and writes
    them. On 16 cores its casts of some microseconds each went to 16 threads, which then wait in
    loops and take the cores from the modules in flight.
    """

    def __init__(self) -> None:
        self._lock, self._pools = threading.Lock(), 0

    def __enter__(self) -> None:
        import numpy  # noqa: F401  # what is not loaded cannot be limited
        import torch

        with self._lock:
            if not self._pools:
                self._limits = threadpool_limits(1, user_api="blas")
                self._torch_threads = torch.get_num_threads()
            self._pools += 1
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        import torch

        with self._lock:
            self._pools -= 1
            if not self._pools:
                self._limits.restore_original_limits()
        torch.set_num_threads(self._torch_threads)


_one_core_each = _OneCoreEach()
