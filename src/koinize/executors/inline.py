"""In this process, one after the other: what tests and debuggers want."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self


class InlineExecutor:
    """Runs each callable at once, in `submit`."""

    def __init__(self, workers: int = 1, threads: int = 1) -> None:
        self.workers, self.threads = 1, workers * threads

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def ready(self) -> None:
        """There is nothing to start."""

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Run it now; the future is already done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - whatever it raised is the caller's to judge
            future.set_exception(error)
        return future


executor = InlineExecutor
