"""Executors run callables, and know nothing of what is run. One file each.

An executor is a context manager whose `submit(function, *arguments)` returns a `Future`. The
function and its arguments must pickle; a failure is that future's exception, never the end of the
others. Leaving the context on an exception stops what is still running; a process on this machine
gets a chance to save what it has (SIGTERM, KeyboardInterrupt). Whether there is a machine that
could do the work is asked before, by `ask`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from types import TracebackType
from typing import Any, Protocol, Self

from koinize import machine
from koinize.catalog import Catalog

MILLIONTH = Decimal("0.000001")
HERE = ""
"""The node that is this machine."""


class WorkerLost(Exception):
    """The worker, or the machine that it was on, is gone: the work may be tried again."""


@dataclass(frozen=True)
class Place:
    """Where a worker works: on which node, what the ledger calls that, and which share of it."""

    node: str
    device: str
    share: Decimal


def places_here(workers: int) -> tuple[Place, ...]:
    """So many equal parts of this machine."""
    return (Place(HERE, machine.device(), part(workers)),) * workers


def part(workers: int) -> Decimal:
    """What one worker holds of its machine; all of them together hold no more than all."""
    return (1 / Decimal(workers)).quantize(MILLIONTH, ROUND_DOWN)


def nothing() -> None:
    """The greeting of whoever has nothing to ask of a worker."""


class WorkerEndedError(BrokenProcessPool):
    """The process that did the work is gone; `how`, such as SIGKILL, is what it ended by."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Executor(Protocol):
    """What the pipeline asks of an executor, whose workers run side by side."""

    @property
    def workers(self) -> int:
        """How many there are."""
        ...

    @property
    def threads(self) -> int:
        """Of each of them."""
        ...

    @property
    def nodes(self) -> Mapping[str, str]:
        """The machines that work for it now, by name, and what the ledger calls each."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def ask(self, greeting: Callable[[], object] = nothing) -> tuple[Place, ...]:
        """Where its workers would be; on each machine but this one, `greeting` is called.

        Raises what that raises there, and InputError where no machine could do the work.
        """
        ...

    def ready(self, greeting: Callable[[], object] = nothing) -> None:
        """Return when the workers have started; work that is submitted sooner waits for that.

        On a machine but this one, each of them calls `greeting` first; raises what that raises.
        """
        ...

    def place(self) -> Place:
        """Where what is submitted next will be done, as long as a worker is free."""
        ...

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Run `function(*arguments)` as soon as a worker is free."""
        ...


executors: Catalog[Callable[..., Executor]] = Catalog("koinize.executors", "executor")
"""Name -> class, made with (workers, threads per worker), each a number or "auto", and by keyword
with what else koinize.yaml says of its machine."""
