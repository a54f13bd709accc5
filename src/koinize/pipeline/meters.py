"""What a worker measures of its own work: its memory, and, where the run is on another machine, the
energy of its own.

On the machine of the run its account reads the meters. A worker elsewhere reads those of its node,
which count all of it, from the beginning of what it has in hand until each of its artifacts is
made, and puts that among the artifact's facts; the run takes the worker's share of it.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from decimal import Decimal
from functools import cache

from koinize import machine
from koinize.ledger.energy import Meter, metering

SAMPLED_SECONDS = 30.0  # a counter of a busy server wraps after ten minutes or more
WORK = "work"
_OPEN = ExitStack()  # until the process ends


class Here:
    """The meter of this machine, read now and then as long as the process lives."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._lock = meter, threading.Lock()
        self._begun = Decimal(0)
        meter.hold(WORK, Decimal(1))
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self) -> None:
        """Count from here on."""
        self._begun = self._read()

    def counted(self) -> dict[str, str]:
        """Joules of the whole machine since `begin`; empty where a counter failed."""
        return self._meter.record(self._read() - self._begun)

    def _read(self) -> Decimal:
        with self._lock:
            self._meter.sample()
            return self._meter.used[WORK]

    def _watch(self) -> None:
        never = threading.Event()
        while not never.wait(SAMPLED_SECONDS):
            self._read()


@cache
def here() -> Here | None:
    """This machine's, opened once; None where there is nothing to read."""
    meter = _OPEN.enter_context(metering())
    return Here(meter) if meter else None


def begin(*, elsewhere: bool) -> None:
    """What this worker has in hand begins; its run is `elsewhere`, on another machine, or here."""
    machine.reset_peak_memory()
    if elsewhere and (meter := here()):
        meter.begin()


def facts(*, elsewhere: bool) -> dict[str, object]:
    """What is recorded of an artifact that is made now: `peak_bytes`, and `energy` if its run
    cannot read it itself.
    """
    found: dict[str, object] = {"peak_bytes": machine.peak_memory()}
    if elsewhere and (meter := here()) and (counted := meter.counted()):
        found["energy"] = counted
    return found
