"""The energy that the machine uses, where its meters can be read: NVML for GPUs, RAPL for CPUs.

A meter counts the whole machine, whoever uses it. What it counts is divided as machine time is: by
the share of the machine that each holds, and what nobody holds is idle. So the parts add up to what
was counted, and nothing is counted twice. Where no meter can be read there is no figure at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

from koinize import machine

POWERCAP = Path("/sys/class/powercap")
COUNTED_ZONES = ("package", "dram")
"""Names of the zones that are added up. `core` and `uncore` lie inside `package`, and `psys` holds
all of them."""

MICROJOULES, MILLIJOULES = 1_000_000, 1_000
BY_SHARE = "by share of the machine"
MILLIJOULE = Decimal("0.001")


@dataclass
class Counter:
    """One counter that only rises, in `unit` parts of a joule; after `period` it begins at 0.

    `failed` says that it could not be read the last time; the next success makes up for that.
    """

    read: Callable[[], int]
    unit: int
    period: int | None = None
    last: int = field(init=False)
    failed: bool = False

    def __post_init__(self) -> None:
        self.last = self.read()

    def advance(self) -> Decimal:
        """Joules since the last call. One wrap between two calls is seen, a second one is not."""
        try:
            now = self.read()
        except Exception:  # noqa: BLE001 - whatever a driver raises, it must not end the work
            self.failed = True
            return Decimal(0)
        self.failed = False
        rise, self.last = now - self.last, now
        if rise < 0:  # wrapped; or its driver was loaded anew, and what was before is lost
            rise = rise + self.period if self.period else now
        return Decimal(rise) / self.unit


@dataclass
class Meter:
    """What a machine's counters counted, divided among those who held a share of it.

    `source` says which counters, and how they are divided. Call `sample` more often than a counter
    wraps (RAPL: after some 65 to 262 kJ, ten minutes or more of a busy server).
    """

    counters: list[Counter]
    source: str
    held: dict[str, Decimal] = field(default_factory=dict)
    used: dict[str, Decimal] = field(default_factory=dict)
    idle: Decimal = Decimal(0)

    def sample(self) -> None:
        """Divide what was counted since the last call among the present holders."""
        counted = sum((one.advance() for one in self.counters), Decimal(0))
        for name, share in self.held.items():
            self.used[name] += counted * share
        self.idle += counted * max(Decimal(0), 1 - sum(self.held.values(), Decimal(0)))

    def hold(self, name: str, share: Decimal) -> None:
        """From now on, `name` holds this share of the machine."""
        self.sample()
        self.held[name], self.used[name] = share, Decimal(0)

    def release(self, name: str) -> Decimal:
        """It no longer does; the joules that were its part."""
        self.sample()
        del self.held[name]
        return self.used.pop(name)

    def record(self, joules: Decimal) -> dict[str, str]:
        """As the ledger keeps it: empty when a counter could not be read in the end."""
        if any(one.failed for one in self.counters):
            return {}
        return recorded(joules, self.source)


def recorded(joules: Decimal, source: str) -> dict[str, str]:
    """Energy as the ledger keeps it."""
    return {"joules": str(joules.quantize(MILLIJOULE)), "source": source}


@contextmanager
def metering(powercap: Path = POWERCAP) -> Iterator[Meter | None]:
    """This machine's meter while the context lasts; None where there is nothing to read."""
    with _gpu_counters() as gpus:
        zones = list(_zones(powercap))
        names = [
            *([f"NVML (GPUs: {len(gpus)})"] if gpus else []),
            *([f"RAPL (zones: {len(zones)})"] if zones else []),
        ]
        counters = [*gpus, *zones]
        yield Meter(counters, f"{' and '.join(names)}; {BY_SHARE}") if counters else None


def _zones(powercap: Path) -> Iterator[Counter]:
    for zone in sorted(powercap.glob("intel-rapl:*")):
        # Since 2020 Linux lets only root read them; then there is no figure.
        with suppress(OSError, ValueError):
            if (zone / "name").read_text().strip().startswith(COUNTED_ZONES):
                period = int((zone / "max_energy_range_uj").read_text())
                yield Counter(_reader(zone / "energy_uj"), MICROJOULES, period + 1)


def _reader(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_text())


@contextmanager
def _gpu_counters() -> Iterator[list[Counter]]:
    """A counter for each NVIDIA GPU in use, of those that count energy (Volta and later)."""
    nvml = _nvml() if machine.gpus() else None
    if nvml is None:
        yield []
        return
    try:
        found = []
        for entry in machine.visible():
            with suppress(nvml.NVMLError):
                found.append(Counter(_energy_of(nvml, entry), MILLIJOULES))
        yield found
    finally:
        nvml.nvmlShutdown()


def _nvml() -> Any:  # noqa: ANN401 - the module pynvml
    """NVIDIA's library, ready; None where it is not installed or finds no driver to talk to."""
    try:
        nvml = import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - its own errors cannot be named before it is there
        return None
    return nvml


def _energy_of(nvml: Any, entry: str) -> Callable[[], int]:  # noqa: ANN401 - the module pynvml
    if entry.isdigit():
        handle = nvml.nvmlDeviceGetHandleByIndex(int(entry))
    else:
        handle = nvml.nvmlDeviceGetHandleByUUID(entry)
    return lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
