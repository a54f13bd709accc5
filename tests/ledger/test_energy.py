# ruff: noqa: N802 - the functions of NVML have the names that NVIDIA gave them
"""Energy: what counters say, divided by share, nothing twice; and no figure where none is read."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinize import machine
from koinize.ledger.energy import Counter, Meter, metering

HALF = Decimal("0.5")


def zone(root: Path, name: str, label: str, microjoules: int, largest: int = 262143328850) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(machine, "gpus", tuple)


def counting(readings: list[int], unit: int = 1000, period: int | None = None) -> Counter:
    return Counter(iter(readings).__next__, unit, period)


def test_packages_and_memory_are_counted_and_what_lies_inside_them_is_not(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    inside = zone(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000)
    whole = zone(tmp_path, "intel-rapl:1", "psys", 9_000_000)
    with metering(tmp_path) as meter:
        assert meter is not None
        assert meter.source == "RAPL (zones: 2); by share of the machine"
        meter.hold("a", Decimal(1))
        package.write_text("6500000")  # 1.5 J
        memory.write_text("2250000")  # 0.25 J
        inside.write_text("9000000")
        whole.write_text("99000000")
        assert meter.release("a") == Decimal("1.75")


def test_a_counter_that_wraps_goes_on(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000, largest=999_999_999)
    with metering(tmp_path) as meter:
        meter.hold("a", Decimal(1))
        package.write_text("500000")  # one joule to the top, half a joule after it
        assert meter.release("a") == Decimal("1.5")


def test_without_meters_there_is_no_figure(tmp_path):
    with metering(tmp_path / "none") as meter:
        assert meter is None


def test_a_meter_that_may_not_be_read_is_no_meter(tmp_path, monkeypatch):
    """As on every Linux since 2020, for all but root."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    real = Path.read_text

    def forbidden(path: Path, *arguments: object) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments)

    monkeypatch.setattr(Path, "read_text", forbidden)
    with metering(tmp_path) as meter:
        assert meter is None


def test_what_is_counted_is_divided_by_share_and_the_rest_is_idle():
    meter = Meter([counting([0, 0, 1000, 5000, 6000, 6500])], "s")
    meter.hold("a", HALF)  # at 0 J
    meter.hold("b", HALF)  # at 1 J: a had half of it
    assert meter.release("a") == Decimal("2.5")  # 4 J more: half to each
    assert meter.release("b") == Decimal("2.5")  # 1 J more: half to b, half idle
    meter.sample()  # 0.5 J with nobody there
    assert meter.idle == Decimal("1.5")  # 0.5 of the first, 0.5 of the third, 0.5 of the last


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from("abc"), st.booleans()), max_size=30),
    st.integers(1, 7),
)
def test_the_parts_add_up_to_what_was_counted(events, workers):
    """Whatever comes and goes: no joule is lost and none is counted twice."""
    share = Decimal(1) / max(3, workers)
    level = [0]
    meter = Meter([Counter(lambda: level[0], 1000)], "s")
    given_out = Decimal(0)
    for rise, name, stay in events:
        level[0] += rise
        if name in meter.held and not stay:
            given_out += meter.release(name)
        elif name not in meter.held:
            meter.hold(name, share)
    for name in list(meter.held):
        given_out += meter.release(name)
    meter.sample()
    assert abs(given_out + meter.idle - Decimal(level[0]) / 1000) < Decimal("1e-15")


def test_a_reading_that_fails_ends_nothing_and_the_next_makes_up_for_it():
    readings = iter([0, OSError("busy"), 3000, OSError("gone")])

    def read() -> int:
        found = next(readings)
        if isinstance(found, OSError):
            raise found
        return found

    meter = Meter([Counter(read, 1000)], "s")
    meter.hold("a", Decimal(1))
    meter.sample()
    assert meter.record(meter.used["a"]) == {"joules": "3.000", "source": "s"}
    assert meter.record(meter.release("a")) == {}


class FakeNvml:
    """Two cards; the second cannot count energy."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.millijoules, self.calls = 1000, []

    def nvmlInit(self) -> None:
        self.calls.append("init")

    def nvmlShutdown(self) -> None:
        self.calls.append("shutdown")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"card {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return f"card {uuid}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle == "card 1":
            raise self.NVMLError("Not Supported")
        self.calls.append(handle)
        return self.millijoules


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setattr(machine, "gpus", lambda: ("H200", "H200"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_the_gpus_that_count_energy_are_read(nvml, tmp_path):
    with metering(tmp_path) as meter:
        assert meter.source == "NVML (GPUs: 1); by share of the machine"
        meter.hold("a", HALF)
        nvml.millijoules += 4000
        assert meter.release("a") == Decimal(2)
    assert nvml.calls == ["init", "card 0", "card 0", "card 0", "shutdown"]


def test_only_the_gpus_in_use_are_read(nvml, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1f0e,5")
    with metering(tmp_path) as meter:
        assert len(meter.counters) == 2
    assert nvml.calls == ["init", "card GPU-1f0e", "card 5", "shutdown"]


def test_gpus_and_processors_add_up(nvml, tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with metering(tmp_path) as meter:
        assert meter.source == "NVML (GPUs: 1) and RAPL (zones: 1); by share of the machine"
        meter.hold("a", Decimal(1))
        nvml.millijoules += 1000
        package.write_text("2000000")
        assert meter.release("a") == Decimal(3)


@pytest.mark.parametrize("trouble", ["missing", "no driver"])
def test_without_nvml_there_is_no_figure(nvml, tmp_path, monkeypatch, trouble):
    def fails() -> None:
        raise nvml.NVMLError("Driver Not Loaded")

    broken = None if trouble == "missing" else SimpleNamespace(nvmlInit=fails)
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    with metering(tmp_path) as meter:
        assert meter is None
