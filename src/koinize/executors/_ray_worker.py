"""What runs on a node of a Ray cluster: a worker, and the look at a node before there is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from koinize import machine
from koinize.executors.local import THREAD_VARIABLES

PULSE = "pulse"
"""The group of calls that are answered while the worker works."""


class Worker:
    """One process, which keeps what it loaded, with the GPUs that Ray gave it, for good."""

    def __init__(self, threads: int) -> None:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    def begin(self, greeting: Callable[[], object]) -> str:
        """Greet; the name of the whole machine."""
        return look(greeting)

    def run(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> Any:  # noqa: ANN401
        """Do a piece of work."""
        return function(*arguments)

    def alive(self) -> None:
        """Answer, as long as the process does."""


def look(greeting: Callable[[], object]) -> str:
    """Greet; the name of this machine, all of its GPUs, as the ledger calls it."""
    greeting()
    return machine.whole_device()
