"""Executors run callables, and know nothing of what is run. One file each.

An executor is a context manager whose `submit(function, *arguments)` returns a `Future`. The
function and its arguments must pickle; a failure is that future's exception, never the end of the
others. Leaving the context on an exception stops what is still running, which gets a chance to save
what it has (SIGTERM, KeyboardInterrupt).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Protocol, Self

from koinize.catalog import Catalog


class WorkerEndedError(BrokenProcessPool):
    """The process that did the work is gone; `how`, such as SIGKILL, is what it ended by."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Executor(Protocol):
    """What the pipeline asks of an executor; `workers` run side by side."""

    workers: int
    threads: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def ready(self) -> None:
        """Return when every worker has started; work that is submitted sooner waits for that."""
        ...

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Run `function(*arguments)` as soon as a worker is free."""
        ...


executors: Catalog[Callable[[int, int], Executor]] = Catalog("koinize.executors", "executor")
"""Name -> class, made with (workers, threads per worker)."""
