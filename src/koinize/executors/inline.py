"""In this process, one after the other: what tests and debuggers want."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from koinize import machine
from koinize.executors import HERE, Place, nothing, places_here


class InlineExecutor:
    """Runs each callable at once, in `submit`."""

    def __init__(self, workers: int | str = 1, threads: int | str = 1) -> None:
        count, each = machine.workers_and_threads(workers, threads)
        self.workers, self.threads = 1, count * each

    @property
    def nodes(self) -> Mapping[str, str]:
        """This machine."""
        return {HERE: machine.device()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def ask(self, greeting: Callable[[], object] = nothing) -> tuple[Place, ...]:  # noqa: ARG002
        """All of this machine."""
        return places_here(1)

    def ready(self, greeting: Callable[[], object] = nothing) -> None:
        """There is nothing to start."""

    def place(self) -> Place:
        """Here."""
        return places_here(1)[0]

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Run it now; the future is already done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - whatever it raised is the caller's to judge
            future.set_exception(error)
        return future


executor = InlineExecutor
