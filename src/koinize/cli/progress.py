"""How far a run is: a live display on a terminal, plain lines elsewhere, nothing for machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from koinize.cli.terminal import unguarded
from koinize.errors import Interrupted
from koinize.pipeline import Plan, Step, Watcher
from koinize.pipeline.estimate import duration
from koinize.shown import line, message


@contextmanager
def watching(*, quiet: bool) -> Iterator[Watcher]:
    """The watcher that suits where the output goes. Ctrl-C meanwhile raises Interrupted."""
    try:
        if quiet:
            yield Silent()
        elif sys.stdout.isatty():
            with Live() as live:
                yield live
        else:
            yield Lines()
    except KeyboardInterrupt:
        remedy = "finished steps are kept, run again to go on"
        raise Interrupted("stopped", remedy=remedy) from None


class Silent:
    """Shows nothing."""

    def planned(self, todo: Plan) -> None:
        """Nothing."""

    def started(self, step: Step) -> None:
        """Nothing."""

    def resumed(self, step: Step, done: int, total: int) -> None:
        """Nothing."""

    def moved(self, step: Step, done: int, total: int) -> None:
        """Nothing."""

    def ended(self, step: Step, seconds: float, error: str) -> None:
        """Nothing."""


class Lines(Silent):
    """A line when a step ends, with the count and the time that is left by the plan's estimate."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.left: dict[str, float] = {}
        self.total = 0
        self.spent = self.expected = 0.0
        self.began = time.monotonic()

    def planned(self, todo: Plan) -> None:
        """Remember the estimates; more steps may be planned while a run goes on."""
        left = {one.step.id: one.seconds for one in todo.missing}
        self.total += len(left) - len(self.left)
        self.expected += sum(left.values()) - sum(self.left.values())
        self.left = left

    def resumed(self, step: Step, done: int, total: int) -> None:
        """One line."""
        self.console.print(message(f"{step.name} goes on at step {done} of {total}"), markup=False)

    def ended(self, step: Step, seconds: float, error: str) -> None:
        """One line."""
        self.left.pop(step.id, None)
        count = f"[{self.total - len(self.left)}/{self.total}]"
        if error:
            self.console.print(message(f"{count} FAILED {step.name}: {error}"), markup=False)
            return
        done = f"{count} {step.name} {duration(seconds)}"
        self.console.print(f"{done}, about {duration(self.remaining())} left", markup=False)

    def remaining(self) -> float:
        """What the plan expects of the rest, corrected by how the part done compares with it."""
        open_work = sum(self.left.values())
        done_work = self.expected - open_work
        elapsed = time.monotonic() - self.began
        return open_work * elapsed / done_work if done_work else open_work


class Live(Lines):
    """A bar for the whole run and one for each step in hand."""

    def __init__(self) -> None:
        super().__init__()
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=unguarded(sys.stdout)),
        )
        self.rows: dict[str, TaskID] = {}

    def __enter__(self) -> Live:
        self.bars.start()
        self.whole = self.bars.add_task("all steps", total=None, note="")
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def planned(self, todo: Plan) -> None:
        """Set the whole bar's length."""
        super().planned(todo)
        self.bars.update(self.whole, total=self.total)

    def started(self, step: Step) -> None:
        """A new bar."""
        self.rows[step.id] = self.bars.add_task(line(step.name), total=None, note="")

    def resumed(self, step: Step, done: int, total: int) -> None:
        """A line above the bars."""
        said = f"{step.name} goes on at step {done} of {total}"
        self.bars.console.print(message(said), markup=False)

    def moved(self, step: Step, done: int, total: int) -> None:
        """The step's bar."""
        self.bars.update(self.rows[step.id], completed=done, total=total)

    def ended(self, step: Step, seconds: float, error: str) -> None:
        """The step's bar goes; what failed stays as a line."""
        self.left.pop(step.id, None)
        del seconds  # a bar has shown them
        self.bars.remove_task(self.rows.pop(step.id))
        note = f"about {duration(self.remaining())} left"
        self.bars.update(self.whole, advance=1, note=note)
        if error:
            self.bars.console.print(message(f"FAILED {step.name}: {error}"), markup=False)
