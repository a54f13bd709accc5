"""How far a merge is: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from koinize.cli.terminal import unguarded

LINE_SECONDS = 5.0  # at most one plain line in this time, and one at the end

Report = Callable[[int, int], None]


@contextmanager
def counting_modules(*, quiet: bool = False) -> Iterator[Report | None]:
    """A callback for (done, all) modules; None where nobody wants to know."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("modules, {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(file=unguarded(sys.stderr))) as progress:
        task = progress.add_task("", total=None, rate="")

        def report(done: int, total: int) -> None:
            rate = _rate(done, time.monotonic() - started)
            progress.update(task, completed=done, total=total, rate=rate)

        yield report


def _lines() -> Report:
    started = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        # The first module's time is that of getting started, which says nothing of the rest.
        if done < total and (done == 1 or now - last < LINE_SECONDS):
            return
        last, elapsed = now, now - started
        left = f"{elapsed / done * (total - done):.0f} s left" if done < total else "done"
        sys.stderr.write(f"{done}/{total} modules, {_rate(done, elapsed)}, {left}\n")

    return report


def _rate(done: int, seconds: float) -> str:
    return f"{done / max(seconds, 1e-3):.3g} modules/s"
